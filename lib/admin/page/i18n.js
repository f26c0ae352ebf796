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

/** Returns the language in use: `en` or `zh`. */
export function language() {
  return current;
}

/** Changes the language, and remembers it for later visits. */
export function setLanguage(name) {
  current = name in LANGUAGES ? name : "en";
  remember("language", current);
}

/** Returns the stored preference, or undefined. */
export function recall(key) {
  try {
    return localStorage.getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Stores a preference. Without storage it lasts until the page is closed. */
export function remember(key, value) {
  try {
    if (value === undefined) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Storage is unavailable. Ignore that.
  }
}

/**
 * Returns the text named `key`, with its `{gaps}` filled from `values`. Texts that depend on a number are
 * functions.
 */
export function t(key, values = {}) {
  const text = LANGUAGES[current][key];
  if (text === undefined) throw new Error(`No text: ${key}`);
  if (typeof text === "function") return text(values);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Translates the texts in index.html: `data-text`, `data-label`. */
export function translate(root) {
  document.documentElement.lang = current === "zh" ? "zh-Hans" : "en";
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
}
