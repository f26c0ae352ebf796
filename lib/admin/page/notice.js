/**
 * What happened, said once: shown for a while, and read out.
 *
 * @module
 */

const SHOWN = 8000;
let timer;

/** Tells `text`; `isError` for what went wrong. */
export function notify(text, { isError = false } = {}) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("wrong", isError);
  status.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => {
    status.classList.remove("shown");
    status.textContent = "";
  }, SHOWN);
}
