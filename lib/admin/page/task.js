/**
 * A task of the server whose progress is watched: a button that starts it and one that ends it.
 *
 * @module
 */
import { events } from "./api.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";

/**
 * `{ buttons, start(body), stop(), setEnabled(isEnabled) }`. `onEvent(data)` gets each event,
 * `onError(error)` why it broke, `onEnd({ isStopped })` that it is over.
 */
export function task({ path, text, onEvent, onError, onEnd, onclick, type = "button" }) {
  let running;
  let isEnabled = true;
  const begin = h("button", { type, class: "primary", onclick }, text);
  const cancel = h("button", { type: "button", class: "quiet", hidden: true }, t("task.stop"));
  const show = () => {
    const hadFocus = document.activeElement === begin || document.activeElement === cancel;
    begin.disabled = running !== undefined || !isEnabled;
    cancel.hidden = running === undefined;
    if (hadFocus) (running ? cancel : begin).focus();
  };
  const stop = () => running?.abort(new DOMException("Stopped", "AbortError"));
  cancel.addEventListener("click", stop);
  return {
    buttons: h("div", { class: "buttons" }, begin, cancel),
    stop,
    setEnabled(value) {
      if (isEnabled === value) return;
      isEnabled = value;
      show();
    },
    async start(body) {
      if (running) return;
      const { signal } = running = new AbortController();
      show();
      try {
        let isDone = false;
        for await (const { data } of events(path, { method: "POST", body, signal })) {
          if (data.type === "error") throw new Error(data.error);
          isDone ||= data.type === "done";
          onEvent(data);
        }
        if (!isDone) throw new Error(t("task.broken"));
      } catch (error) {
        if (!signal.aborted && error.status !== 401) onError(error);
      } finally {
        running = undefined;
        show();
        onEnd({ isStopped: signal.aborted });
      }
    },
  };
}
