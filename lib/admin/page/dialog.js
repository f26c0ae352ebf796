/**
 * A question before something is done, in a native dialog: it keeps the focus within and gives it back.
 *
 * @module
 */
import { freshId, h } from "./dom.js";
import { t } from "./i18n.js";

/** Asks; resolves to whether it was confirmed. Escape and a click beside it mean no. */
export function confirm({ title, text, action, isDangerous = false }) {
  const id = freshId("dialog");
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": id,
        "aria-describedby": `${id}-text`,
        onclose: () => {
          dialog.remove();
          resolve(dialog.returnValue === "yes");
        },
        onclick: (event) => {
          if (event.target === dialog) dialog.close("no");
        },
      },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id }, title),
        h("div", { id: `${id}-text` }, text.map((line) => h("p", {}, line))),
        h(
          "div",
          { class: "buttons" },
          // First, so that Enter does no harm.
          h("button", { value: "no", class: "quiet" }, t("dialog.cancel")),
          h("button", { value: "yes", class: isDangerous ? "danger" : "primary" }, action),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
