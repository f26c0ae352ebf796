/**
 * Shows one image down to its layers, and actions on it.
 *
 * @module
 */
import { get, send, withQuery } from "../api.js";
import { copyBlock } from "../copy.js";
import { confirm } from "../dialog.js";
import { h } from "../dom.js";
import { count, size } from "../format.js";
import { t } from "../i18n.js";
import { notify } from "../notice.js";
import { digestWithCopy, failure, since, textOf } from "../parts.js";
import { linkTo } from "../router.js";
import { contents, mediaType } from "./contents.js";

/** Mounts the view. Returns a function that unmounts it. */
export function imageView(main, { live, route }) {
  const [registry, repository, tag] = ["registry", "repository", "tag"]
    .map((key) => route.query.get(key) ?? "");
  const name = `${registry}/${repository}:${tag}`;
  const asked = new AbortController();
  const body = h("div", { "aria-busy": "true" }, h("p", { class: "muted" }, t("image.loading")));
  const actions = h("div", { class: "actions" });

  const button = (text, run, style) =>
    h("button", { type: "button", class: style, onclick: (event) => act(event.target, run) }, text);
  actions.append(
    button(t("image.refresh"), refresh, "quiet"),
    h(
      "a",
      { class: "button quiet", href: linkTo("/upkeep", { image: name }) },
      t("image.warm"),
    ),
    button(t("image.removeTag"), removeTag, "quiet danger"),
    button(t("image.removeRepository"), removeRepository, "quiet danger"),
  );

  main.append(
    h("p", { class: "back" }, h("a", { href: "#/images" }, t("image.back"))),
    h(
      "h1",
      { class: "image-name", tabindex: "-1", "data-focus": true },
      h("span", { class: "muted" }, `${registry}/`),
      h("wbr"),
      repository,
      h("wbr"),
      h("span", { class: "muted" }, ":"),
      tag,
    ),
    actions,
    body,
  );

  async function act(element, run) {
    element.disabled = true;
    try {
      await run();
    } catch (error) {
      if (error.status !== 401) {
        notify(t("image.failed", { name, error: textOf(error) }), { isError: true });
      }
    } finally {
      element.disabled = false;
      // A disabled button loses focus.
      if (element.isConnected && document.activeElement === document.body) element.focus();
    }
  }

  async function refresh() {
    const { changed } = await send("POST", "api/refresh", { body: { registry, repository, tag } });
    notify(t(changed ? "image.changed" : "image.unchanged", { name }));
    await load();
  }

  async function removeTag() {
    const isSure = await confirm({
      title: t("image.removeTagTitle"),
      text: [name, t("image.removeText")],
      action: t("image.removeTag"),
      isDangerous: true,
    });
    if (isSure) await remove({ registry, repository, tag });
  }

  async function removeRepository() {
    const { total } = await get(withQuery("api/images", {
      q: `${registry}/${repository}:`,
      registry,
      limit: 1,
    }));
    const isSure = await confirm({
      title: t("image.removeRepositoryTitle"),
      text: [
        `${registry}/${repository}`,
        total === undefined
          ? t("image.removeAllTags")
          : t("image.removeTags", { n: total, text: count(total) }),
        t("image.removeText"),
      ],
      action: t("image.removeRepository"),
      isDangerous: true,
    });
    if (isSure) await remove({ registry, repository });
  }

  async function remove(what) {
    const { removedTags, freedBytes } = await send("DELETE", withQuery("api/image", what));
    notify(
      t("image.removed", { n: removedTags, text: count(removedTags), size: size(freedBytes) }),
    );
    location.hash = "#/images";
  }

  async function load() {
    const path = withQuery("api/image", { registry, repository, tag });
    try {
      show(await get(path, { signal: asked.signal }));
    } catch (error) {
      if (asked.signal.aborted || error.status === 401) return;
      const isGone = error.status === 404;
      actions.hidden = isGone;
      body.replaceChildren(failure(isGone ? t("image.gone") : textOf(error), isGone ? null : load));
    } finally {
      body.removeAttribute("aria-busy");
    }
  }

  function show(image) {
    const now = live.state.overview?.now ?? Date.now();
    const here = image.contents.filter(({ isHere }) => isHere);
    // Platforms share layers.
    const sizes = new Map(here.map((part) => [part.digest, part.size]));
    const stored = [...sizes.values()].reduce((sum, bytes) => sum + Math.max(0, bytes), 0);
    const json = JSON.stringify(image.manifest, null, 2);
    actions.hidden = false;
    body.replaceChildren(
      h(
        "dl",
        { class: "facts" },
        fact(t("image.digest"), digestWithCopy(image.digest)),
        fact(t("image.mediaType"), mediaType(image)),
        fact(t("image.stored"), size(stored)),
        fact(t("images.checkedAt"), since(image.checkedAt, now)),
        image.usedAt && fact(t("images.usedAt"), since(image.usedAt, now)),
      ),
      h("h2", {}, t("image.contents")),
      contents(image.contents),
      image.manifest && h(
        "details",
        { class: "raw" },
        h("summary", {}, t("image.manifest")),
        copyBlock(json, { title: image.mediaType, what: t("image.manifest") }),
      ),
    );
  }

  load();
  return () => asked.abort();
}

function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}
