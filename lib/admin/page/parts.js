/**
 * Pieces that several views show.
 *
 * @module
 */
import { copyButton } from "./copy.js";
import { freshId, h, s, setAttribute, setText } from "./dom.js";
import { ago, moment, NONE, shortDigest } from "./format.js";
import { t } from "./i18n.js";

/** A section with its title beside it, as in a ledger. */
export function section(title, ...children) {
  const id = freshId("section");
  return h(
    "section",
    { class: "sheet", "aria-labelledby": id },
    h("h2", { id }, title),
    h("div", { class: "body" }, children),
  );
}

/** A labelled number: `{ element, set(value, note) }`. */
export function figure(label, { note } = {}) {
  const value = h("dd", { class: "value" }, NONE);
  const small = h("dd", { class: "note" }, note ?? "");
  return {
    element: h("div", { class: "figure" }, h("dt", {}, label), value, small),
    set(text, more) {
      setText(value, text);
      if (more !== undefined) setText(small, more);
    },
  };
}

/** A bar from 0 to 1, `role` progressbar or meter: `{ element, set(part, text) }`; null part: unknown. */
export function bar(label, role = "progressbar") {
  const rect = s("rect", { height: "100%", width: "0", class: "filled" });
  const element = h(
    "span",
    { class: "bar", role, "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" },
    s("svg", { "aria-hidden": "true", focusable: "false" }, rect),
  );
  return {
    element,
    set(part, text) {
      element.classList.toggle("unknown", part === null);
      const value = part === null ? null : Math.round(Math.min(1, Math.max(0, part)) * 100);
      setAttribute(element, "aria-valuenow", value);
      setAttribute(element, "aria-valuetext", text ?? null);
      rect.setAttribute(
        "width",
        part === null ? "35%" : `${Math.min(1, Math.max(0, part)) * 100}%`,
      );
    },
  };
}

/** How long ago, with the moment itself as its title. */
export function since(at, now) {
  if (!at) return h("span", { class: "muted" }, t("time.never"));
  return h("time", { datetime: new Date(at).toISOString(), title: moment(at) }, ago(at, now));
}

/** A digest, short, to be copied in full. */
export function digestWithCopy(digest) {
  return h(
    "span",
    { class: "digest" },
    h("code", { title: digest }, shortDigest(digest)),
    copyButton(() => digest, shortDigest(digest)),
  );
}

/** Something that could not be shown, and a button to try again. */
export function failure(text, retry) {
  return h(
    "div",
    { class: "empty wrong", role: "alert" },
    h("p", {}, text),
    retry && h("button", { type: "button", onclick: retry }, t("error.retry")),
  );
}

/** Why there is nothing. */
export function empty(title, ...more) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "title" }, title),
    more.map((text) => h("p", {}, text)),
  );
}

/** What to tell about an error of the API. */
export function textOf(error) {
  return error.status === 0 ? t("error.down") : error.message;
}
