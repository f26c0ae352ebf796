/**
 * Lists the cached images. The server searches, sorts and pages them. Beyond ten thousand images it lists
 * them by name only, page by page.
 *
 * @module
 */
import { get, withQuery } from "../api.js";
import { h } from "../dom.js";
import { count, shortDigest, size } from "../format.js";
import { t } from "../i18n.js";
import { empty, failure, since, textOf } from "../parts.js";
import { linkTo, replaceRoute } from "../router.js";
import { cell, sortHeading } from "../table.js";

const PAGE = 50;
/**
 * Maximum number of requests to fill one page of a long list. A search reads a few thousand entries per
 * request.
 */
const TRIES = 20;
/** Delay after the last keystroke, in ms. */
const TYPING = 200;
/** The initial order of a column: names ascending, numbers descending. */
const COLUMNS = [
  { name: "repository", first: "asc" },
  { name: "tag", first: "asc" },
  { name: "platforms", first: "asc" },
  { name: "size", first: "desc", isNumber: true },
  { name: "checkedAt", first: "desc", isNumber: true },
  { name: "usedAt", first: "desc", isNumber: true },
  { name: "hits", first: "desc", isNumber: true },
];

/** Mounts the view. Returns a function that unmounts it. */
export function imagesView(main, { live, route }) {
  const query = {
    q: route.query.get("q") ?? "",
    registry: route.query.get("registry") ?? "",
    attached: route.query.get("attached") === "true" ? "true" : "",
    sort: route.query.get("sort") ?? "usedAt",
    order: route.query.get("order") ?? "desc",
    offset: Math.max(0, Number.parseInt(route.query.get("offset") ?? "0", 10) || 0),
  };
  /** Cursors of a long list: of the current page and of those before it. */
  let last = "";
  let next;
  const trail = [];
  let asked = new AbortController();
  let typing;

  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: t("images.searchHint"),
    autocomplete: "off",
    spellcheck: "false",
    value: query.q,
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => ask({ q: search.value.trim(), offset: 0 }), TYPING);
    },
  });
  const registry = h("select", {
    id: "registry",
    onchange: () => ask({ registry: registry.value, offset: 0 }),
  }, h("option", { value: "" }, t("images.all")));
  // cosign's attachments are tags too, up to three per image.
  const attached = h("input", {
    type: "checkbox",
    checked: query.attached === "true",
    onchange: () => ask({ attached: attached.checked ? "true" : "", offset: 0 }),
  });
  const total = h("p", { class: "total", role: "status" });
  const sorts = COLUMNS.map((column) =>
    sortHeading({ ...column, text: t(`images.${column.name}`), onSort: sortBy(column) })
  );
  const body = h("tbody", { role: "rowgroup" });
  const table = h(
    "table",
    { class: "images", role: "table", "aria-label": t("nav.images") },
    h(
      "thead",
      { role: "rowgroup" },
      h("tr", { role: "row" }, sorts.map(({ element }) => element)),
    ),
    body,
  );
  const instead = h("div", {});
  const before = pager("images.before", () => {
    if (trail.length === 0) return ask({ offset: Math.max(0, query.offset - PAGE) });
    last = trail.pop();
    return ask();
  });
  const after = pager("images.after", () => {
    if (next === undefined) return ask({ offset: query.offset + PAGE });
    trail.push(last);
    last = next;
    return ask();
  });
  const range = h("span", { class: "range" });
  const pages = h("nav", { class: "pager", "aria-label": t("images.pages") }, before, range, after);

  main.append(
    h("h1", { tabindex: "-1", "data-focus": true }, t("nav.images")),
    h(
      "form",
      { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", {}, h("span", {}, t("images.search")), search),
      h("label", {}, h("span", {}, t("images.registry")), registry),
      h("label", { class: "tick" }, attached, h("span", {}, t("images.attached"))),
      total,
    ),
    table,
    instead,
    pages,
  );

  function sortBy({ name, first }) {
    return () => {
      const other = query.order === "asc" ? "desc" : "asc";
      ask({ sort: name, order: query.sort === name ? other : first, offset: 0 });
    };
  }

  function pager(key, onclick) {
    return h("button", { type: "button", class: "quiet", onclick }, t(key));
  }

  async function ask(changes = {}) {
    Object.assign(query, changes);
    if (Object.keys(changes).length > 0) {
      last = "";
      trail.length = 0;
    }
    replaceRoute("/images", { ...query, offset: query.offset || "" });
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    table.setAttribute("aria-busy", "true");
    try {
      const asking = { ...query, attached: query.attached || "false", limit: PAGE, last };
      let found = await get(withQuery("api/images", asking), { signal });
      for (let i = 0; i < TRIES && found.next && found.images.length < PAGE; i++) {
        const limit = PAGE - found.images.length;
        const path = withQuery("api/images", { ...asking, limit, last: found.next });
        const more = await get(path, { signal });
        found = { ...more, images: [...found.images, ...more.images] };
      }
      // The last page may be empty after a removal.
      if (found.images.length === 0 && found.total > 0 && query.offset > 0) {
        return await ask({ offset: Math.floor((found.total - 1) / PAGE) * PAGE });
      }
      show(found);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      table.hidden = pages.hidden = true;
      total.textContent = "";
      instead.replaceChildren(failure(textOf(error), () => ask()));
    } finally {
      if (!signal.aborted) table.removeAttribute("aria-busy");
    }
  }

  function show(found) {
    const { images } = found;
    next = found.next;
    const isLong = next !== undefined || last !== "";
    const all = isLong ? found.total : found.total ?? images.length;
    for (const sort of sorts) sort.set(query.sort, query.order);
    const now = live.state.overview?.now ?? Date.now();
    body.replaceChildren(...images.map((image) => row(image, now)));
    table.hidden = images.length === 0;
    pages.hidden = isLong ? false : all <= PAGE;
    before.disabled = isLong ? trail.length === 0 : query.offset === 0;
    after.disabled = isLong ? next === undefined : query.offset + PAGE >= all;
    range.textContent = isLong ? t("images.byName") : t("images.range", {
      from: count(query.offset + 1),
      to: count(Math.min(query.offset + PAGE, all)),
      total: count(all),
    });
    total.textContent = all ? t("images.total", { n: all, text: count(all) }) : "";
    instead.replaceChildren(...images.length === 0 && !isLong ? [nothing()] : []);
  }

  function nothing() {
    if (live.state.overview?.cache === null) return empty(t("images.off"), t("images.offHow"));
    if (query.q || query.registry) return empty(t("images.noMatch"), t("images.noMatchHow"));
    const how = h("a", { href: "#/connect" }, t("images.emptyLink"));
    return empty(t("images.empty"), t("images.emptyHow"), how);
  }

  function offer(registries) {
    // What has several names is listed by the first.
    const known = registries.filter(({ url }, i) =>
      registries.findIndex((one) => one.url === url) === i
    ).map(({ registry }) => registry);
    const names = query.registry && !known.includes(query.registry)
      ? [...known, query.registry]
      : known;
    registry.replaceChildren(
      h("option", { value: "" }, t("images.all")),
      ...names.map((name) => h("option", { value: name }, name)),
    );
    registry.value = query.registry;
  }

  offer(live.state.registries ?? []);
  ask();
  let offered = live.state.registries !== undefined;
  const unlisten = live.listen((state, what) => {
    if (what === "registries" && !offered) {
      offered = true;
      offer(state.registries);
    }
    // The empty list says why only once it is known; and a list is read again after an outage.
    if (what === "connection" && state.connection === "up") ask();
    if (what === "overview" && instead.firstChild && state.overview.cache === null) {
      if (table.hidden && !instead.querySelector(".wrong")) instead.replaceChildren(nothing());
    }
  });
  return () => {
    unlisten();
    clearTimeout(typing);
    asked.abort();
  };
}

function row(image, now) {
  const { registry, repository, tag } = image;
  const link = linkTo("/image", { registry, repository, tag });
  const isPartial = image.isWhole === false;
  return h(
    "tr",
    { role: "row" },
    h(
      "th",
      { role: "rowheader", scope: "row" },
      h("a", { href: link }, h("span", { class: "muted" }, `${registry}/`), breakable(repository)),
    ),
    cell(t("images.tag"), h("code", { title: tag }, shortDigest(tag))),
    cell(t("images.platforms"), platformList(image, isPartial)),
    cell(t("images.size"), size(image.size), { isNumber: true }),
    cell(t("images.checkedAt"), since(image.checkedAt, now), { isNumber: true }),
    cell(t("images.usedAt"), since(image.usedAt, now), { isNumber: true }),
    cell(t("images.hits"), count(image.hits), { isNumber: true }),
  );
}

/** More are counted. */
const PLATFORMS = 3;

function platformList({ platforms }, isPartial) {
  const names = platforms.map((name) => name.replace(/^linux\//, ""));
  const more = names.length - PLATFORMS;
  return [
    h(
      "span",
      { class: "platforms", title: platforms.join(", ") },
      names.slice(0, PLATFORMS).join(", ") || "–",
      more > 0 && ` +${more}`,
    ),
    isPartial && h("span", { class: "tagged", title: t("images.partialHow") }, t("images.partial")),
  ];
}

/** A long name may break after its slashes. */
function breakable(name) {
  return name.split(/(?<=\/)/).flatMap((part, i) => i === 0 ? [part] : [h("wbr"), part]);
}
