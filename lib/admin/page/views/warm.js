/**
 * Warms images: downloads all parts of an image in advance.
 *
 * @module
 */
import { h, keyed, setText } from "../dom.js";
import { percent, shortDigest, size } from "../format.js";
import { t } from "../i18n.js";
import { notify } from "../notice.js";
import { bar, textOf } from "../parts.js";
import { task } from "../task.js";

/** `{ element, stop(), setEnabled(isEnabled) }`; `image` is in the form from the start. */
export function warmer(image) {
  const images = h("textarea", {
    id: "warm-images",
    rows: "3",
    required: true,
    spellcheck: "false",
    autocapitalize: "off",
    placeholder: "nginx:1.29\nghcr.io/owner/name:1",
    "aria-describedby": "warm-hint",
  }, image);
  const platforms = h("input", {
    id: "warm-platforms",
    spellcheck: "false",
    autocapitalize: "off",
    value: "all",
    "aria-describedby": "warm-platforms-hint",
  });
  const result = h("p", { class: "result", role: "status" });
  const lists = h("div", { class: "warming" });
  let parts = new Map();
  let isOk;
  let problem;

  const update = keyed(lists, ({ name }) => name, makeImage);
  const redraw = () =>
    update([...parts].map(([name, list]) => ({ name, list: [...list.values()] })));

  const run = task({
    path: "api/warm",
    text: t("warm.start"),
    type: "submit",
    onEvent(event) {
      if (event.type === "done") isOk = event.ok;
      if (event.type !== "progress") return;
      const { image: name, role, reference, platform = "" } = event;
      if (!parts.has(name)) parts.set(name, new Map());
      parts.get(name).set(`${role} ${reference} ${platform}`, event);
      redraw();
    },
    onError: (error) => problem = textOf(error),
    onEnd({ isStopped }) {
      const text = isStopped
        ? t("task.stopped")
        : problem ?? t(isOk ? "warm.ok" : "warm.failed", { n: parts.size });
      result.textContent = text;
      result.classList.toggle("wrong", !isStopped && !isOk);
      if (!isStopped) notify(text, { isError: !isOk });
    },
  });

  const submit = (event) => {
    event.preventDefault();
    const names = images.value.split(/\s+/).filter(Boolean);
    const wanted = platforms.value.trim().toLowerCase();
    parts = new Map();
    isOk = problem = undefined;
    result.textContent = t("warm.running");
    result.classList.remove("wrong");
    redraw();
    run.start({
      images: names,
      platforms: wanted === "" || wanted === "all" ? "all" : wanted.split(/[\s,]+/),
    });
  };

  return {
    stop: run.stop,
    setEnabled: run.setEnabled,
    element: h(
      "form",
      { class: "task", onsubmit: submit },
      h("p", {}, t("warm.text")),
      h("label", { for: "warm-images" }, t("warm.images")),
      images,
      h("p", { id: "warm-hint", class: "hint" }, t("warm.hint")),
      h("label", { for: "warm-platforms" }, t("warm.platforms")),
      platforms,
      h("p", { id: "warm-platforms-hint", class: "hint" }, t("warm.platformsHint")),
      run.buttons,
      result,
      lists,
    ),
  };
}

function makeImage({ name }) {
  const list = h("ul", { class: "parts" });
  const update = keyed(
    list,
    (part) => `${part.role} ${part.reference} ${part.platform ?? ""}`,
    makePart,
  );
  return {
    element: h("section", { "aria-label": name }, h("h3", { class: "name" }, name), list),
    // When upstream is away every part says so: once is enough.
    update({ list: parts }) {
      const told = new Set();
      update(parts.map((part) => {
        const { error, ...rest } = part;
        if (error === undefined || told.has(error)) return rest;
        told.add(error);
        return part;
      }));
    },
  };
}

function makePart({ role, reference, platform }) {
  // What is attached to a digest is asked for by it.
  const short = shortDigest(reference.replace(/^referrers of /, ""));
  const name = `${t(`warm.is.${role}`)} ${short}`;
  const progress = bar(name);
  const state = h("span", { class: "state-text" });
  const error = h("span", { class: "wrong" });
  const element = h(
    "li",
    {},
    h("span", { class: "role" }, t(`warm.is.${role}`)),
    h("code", { title: reference }, short),
    h("span", { class: "muted" }, platform ?? ""),
    progress.element,
    state,
    error,
  );
  return {
    element,
    update(part) {
      const isOver = ["here", "fetched", "skipped"].includes(part.state);
      const known = part.size > 0 ? part.received / part.size : 0;
      const done = isOver ? 1 : part.state === "failed" ? 0 : known;
      element.className = part.state;
      progress.set(done, `${t(`warm.state.${part.state}`)} ${percent(done, 0)}`);
      const bytes = part.size > 0 ? ` · ${size(part.size)}` : "";
      setText(state, t(`warm.state.${part.state}`) + bytes);
      setText(error, part.error ?? "");
    },
  };
}
