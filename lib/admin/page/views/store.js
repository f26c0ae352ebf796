/**
 * The store and the process.
 *
 * @module
 */
import { h, setText } from "../dom.js";
import { count, duration, latency, NONE, percent, size } from "../format.js";
import { t } from "../i18n.js";
import { bar, figure } from "../parts.js";

const FULL = 0.95;
const REASONS = ["space", "unused", "damaged", "removed"];
const TROUBLES = ["disk_error", "mismatch", "no_room"];

/** `{ element, set(overview) }` */
export function storeFigures() {
  const used = bar(t("store.used"), "meter");
  const usedText = h("p", { class: "used" });
  const entries = figure(t("store.entries"));
  const evicted = figure(t("store.evicted"));
  const rejected = figure(t("store.rejected"));
  const trouble = figure(t("store.trouble"));
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
        [entries, evicted, trouble, rejected, memory, lag].map(({ element }) => element),
      ),
    ),
    set({ cache, rejected: reasons, memory: { rss }, loopLagMs, startedAt, now }) {
      off.hidden = cache !== null;
      disk.hidden = cache === null;
      usedText.classList.toggle("wrong", Boolean(cache?.problem));
      used.element.hidden = Boolean(cache?.problem);
      if (cache?.problem) setText(usedText, t("store.problem", { text: cache.problem }));
      else if (cache) {
        const part = cache.cap > 0 ? cache.bytes / cache.cap : 0;
        used.set(part, percent(part));
        used.element.classList.toggle("low", part > FULL);
        const values = { used: size(cache.bytes), cap: size(cache.cap), part: percent(part) };
        setText(usedText, t("store.usedOf", values));
      }
      entries.set(cache && !cache.problem ? count(cache.entries) : NONE);
      const { evictions, troubles } = cache ?? { evictions: {}, troubles: {} };
      evicted.set(
        cache ? count(sum(evictions)) : NONE,
        listed(evictions, (reason) => REASONS.includes(reason) ? t(`evicted.${reason}`) : reason),
      );
      trouble.set(
        cache ? count(sum(troubles)) : NONE,
        listed(troubles, (event) => TROUBLES.includes(event) ? t(`trouble.${event}`) : event),
      );
      trouble.element.classList.toggle("wrong", sum(troubles) > 0);
      rejected.set(count(sum(reasons)), listed(reasons, (reason) => reason));
      memory.set(size(rss), t("store.uptime", { time: duration(now - startedAt) }));
      lag.set(latency(loopLagMs));
    },
  };
}

function sum(counts) {
  return Object.values(counts).reduce((total, n) => total + n, 0);
}

function listed(counts, nameOf) {
  return Object.entries(counts).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${nameOf(reason)} ${count(n)}`).join(", ");
}
