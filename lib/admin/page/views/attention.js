/**
 * Shows what needs the operator's attention, if anything.
 *
 * @module
 */
import { h, keyed, setText } from "../dom.js";
import { count } from "../format.js";
import { t } from "../i18n.js";
import { FEW, problemOf } from "./registries.js";

/** `{ element, set(state) }`, of the state as `Live` has it. */
export function attentionList() {
  const list = h("ul", {});
  const element = h(
    "section",
    { class: "attention", role: "status", "aria-label": t("attention.label") },
    list,
  );
  const update = keyed(list, ({ key }) => key, makeItem);
  return {
    element,
    set({ overview, registries = [] }) {
      const items = [...troublesOf(registries), ...troubleOf(overview?.cache)];
      element.hidden = items.length === 0;
      update(items);
    },
  };
}

function makeItem() {
  const element = h("li", {});
  return { element, update: ({ text }) => setText(element, text) };
}

function troublesOf(registries) {
  const seen = new Set();
  return registries.flatMap((one) => {
    const { registry, name, url, state, quota } = one;
    const items = [];
    if (state === "down") {
      const text = t("attention.down", { registry, problem: problemOf(one) });
      items.push({ key: `${name} down`, text });
    }
    const isLow = quota?.limit && quota.remaining / quota.limit < FEW;
    // Several names of one upstream share its quota.
    if (isLow && !seen.has(url)) {
      const [n, limit] = [count(quota.remaining), count(quota.limit)];
      items.push({ key: `${name} quota`, text: t("attention.quota", { registry, n, limit }) });
    }
    seen.add(url);
    return items;
  });
}

function troubleOf(cache) {
  if (!cache?.problem) return [];
  return [{ key: "index", text: t("store.problem", { text: cache.problem }) }];
}
