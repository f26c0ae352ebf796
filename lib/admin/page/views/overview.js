/**
 * The overview: what the cache saves at a glance.
 *
 * @module
 */
import { h, s, setText } from "../dom.js";
import { count, duration, NONE, percent, size, times } from "../format.js";
import { contentRequests, ratioOf } from "../ratio.js";
import { t } from "../i18n.js";
import { section } from "../parts.js";
import { attentionList } from "./attention.js";
import { fillList } from "./fills.js";
import { registryTable } from "./registries.js";
import { storeFigures } from "./store.js";
import { trafficCharts } from "./traffic.js";

/** Mounts the view. Returns a function that unmounts it. */
export function overviewView(main, { live }) {
  const [top, attention, traffic, registries, fills, store] = [
    verdict(),
    attentionList(),
    trafficCharts({ range: live.range, onRange: (range) => live.setRange(range) }),
    registryTable(),
    fillList(),
    storeFigures(),
  ];
  main.append(
    h("h1", { class: "unseen", tabindex: "-1", "data-focus": true }, t("nav.overview")),
    top.element,
    attention.element,
    section(t("traffic.title"), traffic.element),
    section(t("fills.title"), fills.element),
    section(t("registries.title"), registries.element),
    section(t("store.title"), store.element),
  );
  const show = (state) => {
    const { overview } = state;
    if (overview) {
      top.set(overview);
      store.set(overview);
    }
    attention.set(state);
    if (state.history) traffic.set(state.history, overview?.now ?? Date.now());
    if (state.registries) registries.set(state.registries, overview?.now);
    if (state.fills) fills.set(state.fills, overview?.limits.waiting);
  };
  show(live.state);
  return live.listen((state, what) => {
    if (what === "overview") {
      top.set(state.overview);
      attention.set(state);
      store.set(state.overview);
    } else if (what !== "connection") show(state);
  });
}

/** The load line of a ship: how deep it lies is how much the cache answers. */
function verdict() {
  const water = s("rect", { x: 0, y: 100, width: 100, height: 100, class: "water" });
  const disc = s(
    "svg",
    { viewBox: "0 0 120 120", class: "disc", "aria-hidden": "true", focusable: "false" },
    s("clipPath", { id: "hull" }, s("circle", { cx: 60, cy: 60, r: 44 })),
    s(
      "g",
      { "clip-path": "url(#hull)" },
      s("rect", { width: 120, height: 120, class: "sky" }),
      water,
    ),
    s("circle", { cx: 60, cy: 60, r: 44, class: "rim" }),
    s("path", { d: "M4 60h112", class: "rim" }),
  );
  water.setAttribute("width", "120");
  const [ratio, saved] = [h("dd", {}, NONE), h("dd", {}, NONE)];
  const [ratioNote, savedNote] = [h("dd", { class: "note" }), h("dd", { class: "note" })];
  const sentence = h("p", { class: "sentence" });
  const [fromCache, fromUpstream] = [
    s("rect", { height: "100%", width: 0, class: "cache" }),
    s("rect", { height: "100%", width: 0, class: "upstream" }),
  ];
  const flow = h(
    "div",
    { class: "flow" },
    s("svg", { "aria-hidden": "true", focusable: "false" }, fromCache, fromUpstream),
  );
  const [cacheKey, upstreamKey] = [h("li", { class: "cache" }), h("li", { class: "upstream" })];
  const element = h(
    "section",
    { class: "verdict", "aria-label": t("verdict.label") },
    disc,
    h(
      "dl",
      { class: "headline" },
      h("div", {}, h("dt", {}, t("verdict.ratio")), ratio, ratioNote),
      h("div", {}, h("dt", {}, t("verdict.saved")), saved, savedNote),
    ),
    h(
      "div",
      { class: "told" },
      sentence,
      flow,
      h("ul", { class: "legend" }, cacheKey, upstreamKey),
    ),
  );
  return {
    element,
    set(overview) {
      const { allTime, now } = overview;
      const { bytesFromCache, bytesFromUpstream, since } = allTime;
      const part = ratioOf(allTime);
      setText(ratio, part === undefined ? NONE : percent(part));
      setText(ratioNote, t("verdict.requests", { n: count(contentRequests(allTime)) }));
      setText(saved, size(bytesFromCache));
      setText(savedNote, t("verdict.since", { time: duration(now - since) }));
      water.setAttribute("y", String(104 - 88 * (part ?? 0)));
      setText(sentence, sentenceOf(overview, part));
      const all = bytesFromCache + bytesFromUpstream;
      const share = all > 0 ? bytesFromCache / all * 100 : 0;
      fromCache.setAttribute("width", `${share}%`);
      fromUpstream.setAttribute("x", `${share}%`);
      fromUpstream.setAttribute("width", all > 0 ? `${100 - share}%` : "0");
      setText(cacheKey, t("verdict.fromCache", { size: size(bytesFromCache) }));
      setText(upstreamKey, t("verdict.fromUpstream", { size: size(bytesFromUpstream) }));
    },
  };
}

function sentenceOf({ cache, allTime, limits }, part) {
  const { bytesFromCache, bytesFromUpstream } = allTime;
  if (cache === null) return t("verdict.off");
  if (part === undefined) return t("verdict.unused");
  if (limits.cacheOnly) return t("verdict.cacheOnly");
  if (bytesFromCache === 0) return t("verdict.filling");
  if (bytesFromUpstream === 0) return t("verdict.allCache");
  const factor = (bytesFromCache + bytesFromUpstream) / bytesFromUpstream;
  return t(factor >= 1.5 ? "verdict.pays" : "verdict.notYet", { times: times(factor) });
}
