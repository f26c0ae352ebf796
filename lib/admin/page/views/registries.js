/**
 * Shows the registries: state, latency and remaining pulls.
 *
 * @module
 */
import { h, keyed, setText } from "../dom.js";
import { ago, count, latency, NONE } from "../format.js";
import { t } from "../i18n.js";
import { bar } from "../parts.js";
import { headings } from "../table.js";

/** Below this share of the limit, few pulls are left. */
export const FEW = 0.15;

/** `{ element, set(registries, now) }` */
export function registryTable() {
  const body = h("tbody", { role: "rowgroup" });
  const update = keyed(body, ({ name }) => name, makeRow);
  const columns = ["name", "state", "latency", "requests", "errors", "quota"];
  const isNumber = (name) => ["latency", "requests", "errors"].includes(name);
  const table = h(
    "table",
    { class: "registries", role: "table", "aria-label": t("registries.title") },
    headings(columns.map((name) => ({ text: t(`registries.${name}`), isNumber: isNumber(name) }))),
    body,
  );
  const unasked = h("p", { class: "unasked muted" });
  return {
    element: h("div", {}, table, unasked),
    set(registries, now = Date.now()) {
      const { asked, unasked: others } = split(registries);
      update(asked.map((one) => ({ ...one, now })));
      table.hidden = asked.length === 0;
      // A dozen of them are configured from the start; most are never asked.
      const names = others.map(({ registry }) => registry);
      unasked.hidden = names.length === 0;
      setText(unasked, t("registries.unasked", { names: names.join(", ") }));
    },
  };
}

/** Those of which something is known, and the others; another name of the same upstream is neither. */
function split(registries) {
  const heard = registries.filter(({ state }) => state !== "unknown");
  const urls = new Set(heard.map(({ url }) => url));
  const rest = registries.filter(({ state, url }) => {
    if (state !== "unknown" || urls.has(url)) return false;
    urls.add(url);
    return true;
  });
  return {
    asked: [...heard, ...rest.filter(({ quota }) => quota)],
    unasked: rest.filter(({ quota }) => !quota),
  };
}

/** Returns a readable reason why a registry is down. */
export function problemOf({ problem }) {
  if (problem === "timeout" || problem === "network") return t(`registries.problem.${problem}`);
  return t("registries.problem.status", { status: problem });
}

function makeRow(registry) {
  const { registry: name, url } = registry;
  const state = h("span", { class: "state" });
  const [delay, requests, errors] = [numeric("latency"), numeric("requests"), numeric("errors")];
  const left = bar(t("registries.quotaOf", { name }), "meter");
  const leftText = h("span", {});
  const quota = h(
    "td",
    { role: "cell", class: "quota", "data-label": t("registries.quota") },
    leftText,
    left.element,
  );
  return {
    element: h(
      "tr",
      { role: "row" },
      h(
        "th",
        { role: "rowheader", scope: "row" },
        h("span", { class: "name", title: url }, name),
        // Where it is not the name that says who is asked.
        hostOf(url) !== name && h("span", { class: "host muted" }, hostOf(url)),
      ),
      h("td", { role: "cell", "data-label": t("registries.state") }, state),
      delay.cell,
      requests.cell,
      errors.cell,
      quota,
    ),
    update(registry) {
      state.className = `state ${registry.state}`;
      const isDown = registry.state === "down";
      const more = isDown ? t("registries.why", { problem: problemOf(registry) }) : "";
      setText(state, t(`registries.is.${registry.state}`) + more);
      state.title = registry.askedAt
        ? t("registries.asked", { ago: ago(registry.askedAt, registry.now) })
        : "";
      setText(delay.value, latency(registry.latencyMs));
      setText(requests.value, count(registry.requests));
      setText(errors.value, count(registry.errors));
      errors.value.classList.toggle("wrong", registry.errors > 0);
      const known = registry.quota;
      left.element.hidden = !known?.limit;
      if (!known) return setText(leftText, NONE);
      const { limit, remaining, at } = known;
      const values = { n: count(remaining), limit: count(limit ?? 0) };
      setText(leftText, t(limit ? "registries.leftOf" : "registries.left", values));
      quota.title = t("registries.seen", { ago: ago(at, registry.now) });
      if (limit) {
        left.set(remaining / limit, leftText.textContent);
        left.element.classList.toggle("low", remaining / limit < FEW);
      }
    },
  };
}

function numeric(name) {
  const value = h("span", {}, NONE);
  const label = t(`registries.${name}`);
  return { value, cell: h("td", { role: "cell", class: "number", "data-label": label }, value) };
}

function hostOf(url) {
  return URL.parse(url)?.host ?? url;
}
