/**
 * Builds DOM nodes. Text is always a text node: names come from registries and clients, never to be
 * parsed as markup.
 *
 * @module
 */

/** An element: `h("p", { class: "note", onclick: run }, "text", child)`. Null and false leave out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return element;
}

/** Sets the text where it differs, so that a selection or a tooltip survives updates. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or, with null, removes an attribute. */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/**
 * Keeps the children of `parent` in step with `items`, moving and updating what is there rather than
 * making it anew: focus and hover stay where they are. `make(item)` returns `{ element, update(item) }`.
 */
export function keyed(parent, keyOf, make) {
  const rows = new Map();
  return (items) => {
    const gone = new Set(rows.keys());
    let at = parent.firstChild;
    for (const item of items) {
      const key = keyOf(item);
      gone.delete(key);
      let row = rows.get(key);
      if (!row) rows.set(key, row = make(item));
      row.update(item);
      if (row.element === at) at = at.nextSibling;
      else parent.insertBefore(row.element, at);
    }
    for (const key of gone) {
      rows.get(key).element.remove();
      rows.delete(key);
    }
  };
}

let ids = 0;

/** An id that no other element has. */
export function freshId(prefix) {
  return `${prefix}-${++ids}`;
}
