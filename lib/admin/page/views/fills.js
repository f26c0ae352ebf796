/**
 * Shows the downloads in progress.
 *
 * @module
 */
import { h, keyed, setAttribute, setText } from "../dom.js";
import { count, duration, percent, shortDigest, size, speed } from "../format.js";
import { t } from "../i18n.js";
import { bar } from "../parts.js";

/** Maximum number of downloads shown. */
const SHOWN = 20;

/** `{ element, set(fills, waiting) }`, where `waiting` more are not let in yet. */
export function fillList() {
  const list = h("ul", { class: "fills" });
  const none = h("p", { class: "muted" }, t("fills.none"));
  const more = h("p", { class: "muted" });
  const queue = h("p", { class: "muted queue" });
  const update = keyed(list, ({ digest }) => digest, makeFill);
  return {
    element: h("div", {}, none, list, more, queue),
    set(fills, waiting = 0) {
      queue.hidden = waiting === 0;
      setText(queue, t("fills.waiting", { n: waiting, text: count(waiting) }));
      update(fills.slice(0, SHOWN));
      none.hidden = fills.length > 0;
      list.hidden = fills.length === 0;
      more.hidden = fills.length <= SHOWN;
      setText(more, t("fills.more", { n: count(fills.length - SHOWN) }));
    },
  };
}

function makeFill({ digest }) {
  const title = h("span", { class: "name" });
  const progress = bar("");
  const [received, rate, readers] = [h("span", {}), h("span", {}), h("span", {})];
  const before = { at: undefined, received: 0, rate: undefined };
  return {
    element: h(
      "li",
      {},
      title,
      h("code", { class: "muted", title: digest }, shortDigest(digest)),
      progress.element,
      h("span", { class: "numbers" }, received, rate, readers),
    ),
    update(fill) {
      const { size: full, readers: clients, registry, repository } = fill;
      const name = [registry, repository].filter(Boolean).join("/") || t("fills.unnamed");
      setText(title, name);
      setAttribute(progress.element, "aria-label", t("fills.progress", { name }));
      const part = full ? fill.received / full : null;
      progress.set(part, part === null ? t("fills.unknown") : percent(part, 0));
      setText(
        received,
        full
          ? t("fills.of", { received: size(fill.received), size: size(full) })
          : size(fill.received),
      );
      const rateNow = currentRate(before, fill);
      const left = full && rateNow > 0 ? (full - fill.received) / rateNow * 1000 : undefined;
      setText(
        rate,
        left === undefined || left < 1000
          ? speed(rateNow)
          : t("fills.left", { speed: speed(rateNow), time: duration(left) }),
      );
      setText(readers, t("fills.readers", { n: clients }));
    },
  };
}

/** The speed of late, which tells of a stall; before that the average. */
function currentRate(before, { received, bytesPerSecond }) {
  const now = performance.now();
  if (before.at === undefined) {
    Object.assign(before, { at: now, received, rate: bytesPerSecond });
  } else if (now - before.at > 900) {
    const recent = (received - before.received) / (now - before.at) * 1000;
    before.rate = before.rate * 0.5 + recent * 0.5;
    Object.assign(before, { at: now, received });
  }
  return Math.max(0, Math.round(before.rate));
}
