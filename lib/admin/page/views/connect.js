/**
 * Shows how clients use this instance: image names and configuration to copy.
 *
 * @module
 */
import { get, withQuery } from "../api.js";
import { copyBlock, copyLine } from "../copy.js";
import { freshId, h } from "../dom.js";
import { t } from "../i18n.js";
import { failure, section, textOf } from "../parts.js";
import { tabs } from "../tabs.js";

const KINDS = ["docker", "containerd", "podman", "buildkit", "kubernetes"];
const TYPING = 250;

/** Mounts the view. Returns a function that unmounts it. */
export function connectView(main) {
  // The last valid address. It stays in use while the user types another.
  let base = "";
  const command = commandBox(() => base);
  const config = configBox(() => base);
  const hint = freshId("hint");
  const problem = h("p", { id: "base-problem", class: "problem", role: "status" });
  const input = h("input", {
    type: "url",
    id: "base",
    placeholder: t("connect.basePlaceholder"),
    spellcheck: "false",
    "aria-describedby": `${hint} base-problem`,
    oninput: later(() => {
      const address = addressIn(input.value);
      const isWrong = address === undefined;
      problem.textContent = isWrong ? t("connect.baseWrong") : "";
      if (isWrong) return input.setAttribute("aria-invalid", "true");
      input.removeAttribute("aria-invalid");
      base = address;
      command.ask();
      config.ask();
    }),
  });
  main.append(
    h("h1", { tabindex: "-1", "data-focus": true }, t("nav.connect")),
    section(
      t("connect.where"),
      h(
        "div",
        { class: "task" },
        h("label", { for: "base" }, t("connect.base")),
        input,
        h("p", { id: hint, class: "hint" }, t("connect.baseHint")),
        problem,
      ),
    ),
    section(t("command.title"), command.element),
    section(t("config.title"), config.element),
  );
  command.ask();
  config.ask();
}

/** Returns the address in `text` without a path, or undefined if it is invalid. */
function addressIn(text) {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const url = URL.parse(/^https?:\/\//.test(trimmed) ? trimmed : `http://${trimmed}`);
  const isPlain = url && url.pathname === "/" && !url.search && !url.hash && !url.username;
  return isPlain ? url.origin : undefined;
}

function later(run) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, TYPING);
  };
}

/** Shows the pull commands for the image that the user enters. */
function commandBox(base) {
  const problem = h("p", { id: "command-problem", class: "problem", role: "status" });
  const input = h("input", {
    id: "command-image",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    placeholder: "ghcr.io/owner/name:1",
    value: "nginx",
    "aria-describedby": "command-problem",
    oninput: later(() => ask()),
  });
  const commands = h("div", { class: "commands" });
  let asked = new AbortController();

  async function ask() {
    asked.abort();
    const { signal } = asked = new AbortController();
    const image = input.value.trim();
    if (image === "") {
      problem.textContent = "";
      return commands.replaceChildren();
    }
    try {
      const found = await get(withQuery("api/command", { image, base: base() }), { signal });
      problem.textContent = "";
      input.removeAttribute("aria-invalid");
      commands.replaceChildren(
        ...found.commands.map(({ tool, command }) =>
          copyLine(command, { title: tool, what: t("command.of", { tool }) })
        ),
      );
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      commands.replaceChildren();
      input.setAttribute("aria-invalid", "true");
      problem.textContent = textOf(error);
    }
  }

  return {
    ask,
    element: h(
      "div",
      { class: "task" },
      h("label", { for: "command-image" }, t("command.image")),
      input,
      problem,
      commands,
    ),
  };
}

/** Shows the configuration of each kind of client. */
function configBox(base) {
  let kind = KINDS[0];
  let asked = new AbortController();
  const panel = h("div", { class: "blocks" });
  const choice = tabs({
    label: t("config.title"),
    tabs: KINDS.map((name) => ({ name, text: t(`config.${name}`) })),
    panel,
    onSelect(name) {
      kind = name;
      ask();
    },
  });

  async function ask() {
    asked.abort();
    const { signal } = asked = new AbortController();
    try {
      const config = await get(withQuery("api/client-config", { kind, base: base() }), { signal });
      panel.replaceChildren(
        ...config.files.map(({ path, text }) => copyBlock(text, { title: path })),
        ...config.steps.length > 0
          ? [
            copyBlock(config.steps.join("\n"), {
              title: t("config.then"),
              what: t("config.thenWhat"),
            }),
          ]
          : [],
      );
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      panel.replaceChildren(failure(textOf(error), ask));
    }
  }

  return { ask, element: h("div", { class: "task" }, h("p", {}, t("config.text")), choice, panel) };
}
