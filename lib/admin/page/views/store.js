/**
 * The store and the process.
 *
 * @module
 */
import { h, setText } from "../dom.js";
import { count, latency, NONE, percent, size } from "../format.js";
import { t } from "../i18n.js";
import { bar, figure } from "../parts.js";

const FULL = 0.95;
const REASONS = ["space", "unused", "damaged", "removed"];

/** `{ element, set(overview) }` */
export function storeFigures() {
  const used = bar(t("store.used"), "meter");
  const usedText = h("p", { class: "used" });
  const entries = figure(t("store.entries"));
  const evicted = figure(t("store.evicted"));
  const rejected = figure(t("store.rejected"));
  const memory = figure(t("store.memory"));
  const lag = figure(t("store.lag"), { note: t("store.lagNote") });
  const off = h("p", { class: "muted" }, t("store.off"));
  const disk = h("div", { class: "disk" }, usedText, used.element);
  return {
    element: h(
      "div",
      { class: "store" },
      off,
      disk,
      h(
        "dl",
        { class: "figures" },
        [entries, evicted, rejected, memory, lag].map(({ element }) => element),
      ),
    ),
    set({ cache, rejected: reasons, memory: { rss }, loopLagMs }) {
      off.hidden = cache !== null;
      disk.hidden = cache === null;
      if (cache) {
        const part = cache.cap > 0 ? cache.bytes / cache.cap : 0;
        used.set(part, percent(part));
        used.element.classList.toggle("low", part > FULL);
        const values = { used: size(cache.bytes), cap: size(cache.cap), part: percent(part) };
        setText(usedText, t("store.usedOf", values));
      }
      entries.set(cache ? count(cache.entries) : NONE);
      const evictions = cache?.evictions ?? {};
      evicted.set(
        cache ? count(REASONS.reduce((sum, reason) => sum + (evictions[reason] ?? 0), 0)) : NONE,
        listed(evictions, (reason) => REASONS.includes(reason) ? t(`evicted.${reason}`) : reason),
      );
      const total = Object.values(reasons).reduce((sum, n) => sum + n, 0);
      rejected.set(count(total), listed(reasons, (reason) => reason));
      memory.set(size(rss));
      lag.set(latency(loopLagMs));
    },
  };
}

function listed(counts, nameOf) {
  return Object.entries(counts).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${nameOf(reason)} ${count(n)}`).join(", ");
}
