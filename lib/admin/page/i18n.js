/**
 * The languages of the page.
 *
 * @module
 */
import { en } from "./lang/en.js";
import { zh } from "./lang/zh.js";

const LANGUAGES = { en, zh };

let current = chosen() ?? preferred();

function chosen() {
  try {
    const name = localStorage.getItem("language");
    return name in LANGUAGES ? name : undefined;
  } catch {
    return undefined;
  }
}

function preferred() {
  const wanted = navigator.languages.map((name) => name.slice(0, 2).toLowerCase());
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}

/** The language in use: `en` or `zh`. */
export function language() {
  return current;
}

/** Changes the language, for the next visit too. */
export function setLanguage(name) {
  current = name in LANGUAGES ? name : "en";
  remember("language", current);
}

/** The preference that was noted; undefined without one. */
export function recall(key) {
  try {
    return localStorage.getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Notes a preference; without storage it lasts as long as the page. */
export function remember(key, value) {
  try {
    if (value === undefined) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Nothing to be done about it.
  }
}

/** The text named `key`, its `{gaps}` filled from `values`; one that depends on a number is a function. */
export function t(key, values = {}) {
  const text = LANGUAGES[current][key];
  if (text === undefined) throw new Error(`No text: ${key}`);
  if (typeof text === "function") return text(values);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Puts the page's language into what index.html has: `data-text`, `data-label`. */
export function translate(root) {
  document.documentElement.lang = current === "zh" ? "zh-Hans" : "en";
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
}
