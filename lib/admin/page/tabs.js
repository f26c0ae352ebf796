/**
 * Tabs, as the ARIA Authoring Practices have them: one stop of the Tab key, arrows between them.
 *
 * @module
 */
import { freshId, h } from "./dom.js";

/** A tab list that labels `panel`; `onSelect(name)` is called for each change. */
export function tabs({ label, tabs, panel, onSelect }) {
  panel.id = freshId("panel");
  panel.setAttribute("role", "tabpanel");
  const buttons = tabs.map(({ name, text }, i) =>
    h("button", {
      type: "button",
      role: "tab",
      id: freshId("tab"),
      "aria-controls": panel.id,
      onclick: () => select(i),
      "data-name": name,
    }, text)
  );
  const select = (index, isFirst = false) => {
    for (const [i, button] of buttons.entries()) {
      button.setAttribute("aria-selected", String(i === index));
      button.tabIndex = i === index ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", buttons[index].id);
    if (!isFirst) onSelect(tabs[index].name);
  };
  select(0, true);
  return h("div", {
    role: "tablist",
    "aria-label": label,
    class: "tabs",
    onkeydown: (event) => {
      const at = buttons.indexOf(document.activeElement);
      const to = {
        ArrowLeft: at - 1,
        ArrowRight: at + 1,
        Home: 0,
        End: buttons.length - 1,
      }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const index = (to + buttons.length) % buttons.length;
      select(index);
      buttons[index].focus();
    },
  }, buttons);
}
