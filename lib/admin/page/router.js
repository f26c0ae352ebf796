/**
 * Views by the address's fragment: `#/images?q=nginx`.
 *
 * @module
 */

/** The route of a fragment: `{ path, query }`. */
export function parseRoute(hash) {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  return { path: path || "/", query: new URLSearchParams(query) };
}

/** The link to a route; empty values are left out. */
export function linkTo(path, values = {}) {
  const query = new URLSearchParams(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== ""),
  );
  return query.size > 0 ? `#${path}?${query}` : `#${path}`;
}

/** Changes the address without a new view: what was typed survives a reload. */
export function replaceRoute(path, values) {
  history.replaceState(null, "", linkTo(path, values));
}
