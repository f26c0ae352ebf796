/**
 * Tables that become lists on a narrow page. Roles are explicit: `display: block` takes them away.
 *
 * @module
 */
import { h } from "./dom.js";
import { t } from "./i18n.js";

/** A row of plain column headings. */
export function headings(columns) {
  return h(
    "thead",
    { role: "rowgroup" },
    h(
      "tr",
      { role: "row" },
      columns.map(({ text, isNumber }) =>
        h("th", { role: "columnheader", scope: "col", class: isNumber ? "number" : null }, text)
      ),
    ),
  );
}

/**
 * A heading that sorts: a button, with `aria-sort` on its column. `onSort(name)` is called at each press.
 * Returns `{ element, set(sort, order) }`.
 */
export function sortHeading({ name, text, isNumber, onSort }) {
  const arrow = h("span", { class: "arrow", "aria-hidden": "true" });
  const element = h(
    "th",
    { role: "columnheader", scope: "col", class: isNumber ? "number" : null },
    h(
      "button",
      {
        type: "button",
        title: t("images.sortBy", { name: text }),
        onclick: () => onSort(name),
      },
      text,
      arrow,
    ),
  );
  return {
    element,
    set(sort, order) {
      const isSorted = sort === name;
      element.setAttribute(
        "aria-sort",
        isSorted ? (order === "asc" ? "ascending" : "descending") : "none",
      );
      arrow.textContent = isSorted ? (order === "asc" ? "▲" : "▼") : "";
    },
  };
}

/** A cell; `label` names it where the headings are not shown. */
export function cell(label, content, { isNumber = false } = {}) {
  return h(
    "td",
    { role: "cell", "data-label": label, class: isNumber ? "number" : null },
    content,
  );
}
