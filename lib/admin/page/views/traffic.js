/**
 * Charts the last hour, day or month: hit ratio, and bytes from the cache and from upstream.
 *
 * @module
 */
import { chart, columnsOf, roundUp } from "../chart.js";
import { freshId, h } from "../dom.js";
import { clock, count, day, percent, size } from "../format.js";
import { t } from "../i18n.js";
import { contentRequests, ratioOf } from "../ratio.js";

const RANGES = ["hour", "day", "month"];

/**
 * Returns `{ element, set(history, now) }`. Calls `onRange(name)` when the user selects another time range.
 */
export function trafficCharts({ range, onRange }) {
  let shown = range;
  const time = (at) => shown === "month" ? day(at) : clock(at);
  const step = (at) => shown === "month" ? `${day(at)} ${clock(at)}` : clock(at);
  const span = () => t(`traffic.in.${shown}`);
  const ratio = chart({
    title: t("traffic.ratio"),
    legend: [
      { name: "cache", text: t("traffic.hits") },
      { name: "rest", text: t("traffic.misses") },
    ],
    top: () => 1,
    label: (value) => percent(value, 0),
    time,
    bars: (column) => {
      const part = ratioOf(column);
      return part === undefined ? undefined : [
        { name: "cache", value: part },
        { name: "rest", value: 1 - part },
      ];
    },
    describe: (column) => t("traffic.ratioIn", { span: step(column.at), ...ratioText(column) }),
    summarize: (columns) => t("traffic.ratioIn", { span: span(), ...ratioText(sum(columns)) }),
  });
  const bytes = chart({
    title: t("traffic.bytes"),
    legend: [
      { name: "cache", text: t("traffic.fromCache") },
      { name: "upstream", text: t("traffic.fromUpstream") },
    ],
    top: (columns) =>
      roundUp(Math.max(...columns.map((one) => one.bytesFromCache + one.bytesFromUpstream)), 1024),
    label: size,
    time,
    bars: (column) => [
      { name: "cache", value: column.bytesFromCache },
      { name: "upstream", value: column.bytesFromUpstream },
    ],
    describe: (column) => t("traffic.bytesIn", { span: step(column.at), ...bytesText(column) }),
    summarize: (columns) => t("traffic.bytesIn", { span: span(), ...bytesText(sum(columns)) }),
  });
  return {
    element: h(
      "div",
      {},
      rangeChoice({ range, onRange }),
      h("div", { class: "charts" }, ratio.element, bytes.element),
    ),
    set(history, now) {
      shown = history.range;
      const columns = columnsOf(history, now);
      ratio.set(columns);
      bytes.set(columns);
    },
  };
}

function rangeChoice({ range, onRange }) {
  const name = freshId("range");
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", { class: "unseen" }, t("traffic.range")),
    RANGES.map((one) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name,
          value: one,
          checked: one === range,
          onchange: () => onRange(one),
        }),
        h("span", {}, t(`traffic.range.${one}`)),
      )
    ),
  );
}

function ratioText(column) {
  const part = ratioOf(column);
  return {
    ratio: part === undefined ? t("traffic.noRatio") : percent(part),
    requests: count(contentRequests(column)),
  };
}

function bytesText({ bytesFromCache, bytesFromUpstream }) {
  return { cache: size(bytesFromCache), upstream: size(bytesFromUpstream) };
}

function sum(columns) {
  const total = {
    hit: 0,
    miss: 0,
    stale: 0,
    bytesFromCache: 0,
    bytesFromUpstream: 0,
  };
  for (const column of columns) {
    for (const key of Object.keys(total)) total[key] += column[key];
  }
  return total;
}
