/**
 * The parts of an image: each manifest with its config and layers.
 *
 * @module
 */
import { h } from "../dom.js";
import { size } from "../format.js";
import { t } from "../i18n.js";
import { digestWithCopy } from "../parts.js";
import { cell, headings } from "../table.js";

/** The contents as the API lists them, by their parents. */
export function contents(parts) {
  const children = new Map();
  for (const part of parts) {
    const key = part.parent ?? "";
    const siblings = children.get(key);
    if (siblings) siblings.push(part);
    else children.set(key, [part]);
  }
  const shown = new Set();
  const draw = (part, isOpen) => {
    const below = shown.has(part.digest) ? [] : children.get(part.digest) ?? [];
    shown.add(part.digest);
    const manifests = below.filter(isManifest);
    const blobs = below.filter((one) => !isManifest(one));
    const title = part.kind === "index"
      ? t("contents.index")
      : part.platform ?? t("contents.manifest");
    return h(
      "details",
      { class: `part ${part.isHere ? "here" : "away"}`, open: isOpen },
      h(
        "summary",
        {},
        h("span", { class: "title" }, title),
        part.kind === "index"
          ? h("span", { class: "muted" }, t("contents.manifests", { n: manifests.length }))
          : h("span", { class: "muted" }, layersText(blobs)),
        isHereMark(part.isHere),
      ),
      h("p", { class: "line" }, digestWithCopy(part.digest), mediaType(part)),
      blobs.length > 0 && blobTable(blobs, title),
      manifests.map((child) => draw(child, false)),
    );
  };
  const roots = children.get("") ?? [];
  return h("div", { class: "contents" }, roots.map((root) => draw(root, true)));
}

function isManifest({ kind }) {
  return kind === "index" || kind === "manifest";
}

function layersText(blobs) {
  const layers = blobs.filter(({ kind }) => kind === "layer");
  const bytes = blobs.reduce((sum, blob) => sum + Math.max(0, blob.size), 0);
  return layers.length > 0 ? t("contents.layers", { n: layers.length, size: size(bytes) }) : "";
}

function blobTable(blobs, title) {
  const columns = ["kind", "digest", "mediaType", "size", "state"];
  return h(
    "table",
    { class: "blobs", role: "table", "aria-label": title },
    headings(columns.map((name) => ({ text: t(`contents.${name}`), isNumber: name === "size" }))),
    h(
      "tbody",
      { role: "rowgroup" },
      blobs.map((blob) =>
        h(
          "tr",
          { role: "row" },
          h("th", { role: "rowheader", scope: "row" }, t(`contents.is.${blob.kind}`)),
          cell(t("contents.digest"), digestWithCopy(blob.digest)),
          cell(t("contents.mediaType"), mediaType(blob)),
          cell(t("contents.size"), size(Math.max(0, blob.size)), { isNumber: true }),
          cell(t("contents.state"), isHereMark(blob.isHere)),
        )
      ),
    ),
  );
}

/** What all of them begin with tells nothing. */
/** A media type, without what all of them begin with. */
export function mediaType({ mediaType }) {
  const short = mediaType.replace(/^application\/vnd\.(oci\.image|docker)\./, "");
  return h("code", { class: "muted", title: mediaType }, short);
}

function isHereMark(isHere) {
  return h(
    "span",
    { class: `mark ${isHere ? "here" : "away"}` },
    t(isHere ? "contents.here" : "contents.away"),
  );
}
