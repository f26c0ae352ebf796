/**
 * Text to paste elsewhere.
 *
 * @module
 */
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { notify } from "./notice.js";

/** A button that copies what `read` returns; `what` names it for those who do not see it. */
export function copyButton(read, what) {
  const button = h("button", {
    type: "button",
    class: "copy",
    "aria-label": t("copy.label", { what }),
    onclick: async () => {
      const copied = await copy(read());
      button.textContent = t(copied ? "copy.done" : "copy.failed");
      notify(t(copied ? "copy.doneWhat" : "copy.failed", { what }), { isError: !copied });
      setTimeout(() => button.textContent = t("copy.button"), 2000);
    },
  }, t("copy.button"));
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text);
  }
}

/** Plain http on an address that is not loopback has no clipboard API. */
function copyOldWay(text) {
  const focused = document.activeElement;
  const area = h("textarea", { class: "unseen", "aria-hidden": "true", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

/** One line of text with its copy button; `title` says for what. */
export function copyLine(text, { title, what }) {
  return h(
    "div",
    { class: "line-block" },
    h("span", { class: "muted" }, title),
    h("code", {}, text),
    copyButton(() => text, what),
  );
}

/** A block of text with its copy button. */
export function copyBlock(text, { title, what = title }) {
  return h(
    "figure",
    { class: "block" },
    h("figcaption", {}, h("span", {}, title), copyButton(() => text, what)),
    h("pre", { tabindex: "0", "aria-label": what }, h("code", {}, text)),
  );
}
