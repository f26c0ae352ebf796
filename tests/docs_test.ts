import { assert, assertEquals, assertGreater } from "@std/assert";
import { dirname, join } from "@std/path";
import { parse as parseToml } from "@std/toml";
import { parse as parseYaml } from "@std/yaml";
import { parse } from "dotenv";
import { Metrics } from "../lib/admin/metrics.ts";
import { CACHE_COMMANDS, COMMANDS, FLAGS, readCommandLine } from "../lib/commands/command_line.ts";
import { RENAMED } from "../lib/config/environment.ts";
import { parseConfig, SETTINGS, UPSTREAM_SUFFIXES } from "../lib/config/config.ts";
import { describeConfig } from "../lib/config/describe.ts";
import { parseDuration } from "../lib/util/units.ts";
import { startFakeRegistry } from "./support/fake_registry.ts";
import { whole } from "./support/http.ts";
import { makeImage } from "./support/image.ts";
import { run } from "./support/process.ts";
import { startTestProxy } from "./support/proxy.ts";
import { ROOT } from "./support/proxy_process.ts";
import { which } from "./support/requirements.ts";

/** Every document, by its path. */
const DOCUMENTS = [
  ...markdownIn("."),
  ...markdownIn("docs"),
  ...markdownIn("docs/zh-CN"),
  ".github/pull_request_template.md",
  "contrib/kubernetes/README.md",
];
/** What a reader needs beyond the README. */
const PAGES = markdownIn("docs");
/** Documents in Chinese, and what each mirrors. */
const TRANSLATIONS: readonly (readonly [chinese: string, english: string])[] = [
  ["README.zh-CN.md", "README.md"],
  ...markdownIn("docs/zh-CN").map((path) => [path, path.replace("zh-CN/", "")] as const),
];
const SETTINGS_PAGES = ["docs/settings.md", "docs/zh-CN/settings.md"] as const;
const README_LINES = 200;

/** Names in capitals that are no settings of this program, and whose they are. */
const NOT_SETTINGS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Object.keys(RENAMED).map((name) => [name, "an old name of a setting"])),
  HTTP_PROXY: "Deno",
  HTTPS_PROXY: "Deno",
  NO_PROXY: "Deno",
  DENO_CERT: "Deno",
  DENO_TLS_CA_STORE: "Deno",
  OTEL_DENO: "Deno",
  OTEL_EXPORTER_OTLP_ENDPOINT: "Deno",
  MALLOC_ARENA_MAX: "glibc",
  MALLOC_MMAP_THRESHOLD_: "glibc",
  DENO_USR2_MEMORY_TRIM: "Deno",
  TCP_NODELAY: "the socket option",
  DNS_ENABLED: "go-docker-proxy",
  DNS_SERVERS: "go-docker-proxy",
  DNS_TIMEOUT: "go-docker-proxy",
};

function markdownIn(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))]
    .filter(({ name, isFile }) => isFile && name.endsWith(".md"))
    .map(({ name }) => join(folder, name))
    .toSorted();
}

/** The files below a folder, by their paths. */
function walk(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) =>
    name.startsWith(".tools") ? [] : isDirectory ? walk(`${folder}/${name}`) : [`${folder}/${name}`]
  );
}

function read(path: string): string {
  return Deno.readTextFileSync(join(ROOT, path));
}

/** The defaults in force, by name; what is not printed has none. */
function defaults(): Record<string, string> {
  const printed = describeConfig(parseConfig({})).split("\n").map((line) => line.split("=", 2));
  const all: Record<string, string> = Object.fromEntries(printed);
  // An older spelling of DEBUG: `config` prints that one.
  return { MODE: "production", ...all };
}

/** Rows of the tables with a backquoted name in their first column. */
function tableRows(
  text: string,
  name: RegExp = /[A-Z][A-Z0-9_<>]*/,
): { name: string; cells: string[] }[] {
  const rows = text.matchAll(new RegExp(`^\\| \`(${name.source})\` \\|(.*)\\|$`, "gm"));
  return [...rows].map(([, name = "", rest = ""]) => ({
    name,
    cells: rest.split(" | ").map((cell) => cell.replaceAll("|", "").trim()),
  }));
}

/** The part below a heading, without the headings below it. */
function section(text: string, heading: string): string {
  const [, part] = text.split(`\n${heading}\n`);
  assert(part !== undefined, heading);
  return part.split(/^#/m)[0]!;
}

/** `text` without its code blocks. */
function proseOf(text: string): string {
  return text.replaceAll(/^```[^]*?^```$/gm, "");
}

function headings(text: string): string[] {
  return [...proseOf(text).matchAll(/^(#+) .+$/gm)].map(([, marks = ""]) => marks);
}

/** Code blocks with their languages. */
function examplesOf(text: string): { language: string; code: string }[] {
  return [...text.matchAll(/^```(\w*)\n([^]*?)^```$/gm)]
    .map(([, language = "", code = ""]) => ({ language, code }));
}

for (const page of SETTINGS_PAGES) {
  Deno.test(`the settings of ${page} are those of the program, with their defaults`, () => {
    const rows = tableRows(
      section(read(page), page.includes("zh") ? "## 全部设置" : "## All settings"),
    );
    assertEquals(rows.map(({ name }) => name).toSorted(), SETTINGS.toSorted());
    const inForce = defaults();
    for (const { name, cells } of rows) {
      assertEquals(cells.length, 2, `${name}: expected a default and a meaning`);
      assertEquals(cells[0]!.replaceAll("`", ""), inForce[name] ?? "", `default of ${name}`);
      assert(cells[1], `${name} has no meaning`);
    }
  });

  Deno.test(`the settings of a registry in ${page} are those of the program`, () => {
    const rows = tableRows(read(page)).filter(({ name }) => name.startsWith("UPSTREAM_<NAME>"));
    assertEquals(
      rows.map(({ name }) => name.slice("UPSTREAM_<NAME>".length)).toSorted(),
      ["", ...UPSTREAM_SUFFIXES].toSorted(),
    );
  });
}

Deno.test("the README is short, and its ten settings have the program's defaults", () => {
  for (const [readme] of [["README.md"], ["README.zh-CN.md"]] as const) {
    const text = read(readme);
    assert(text.trimEnd().split("\n").length <= README_LINES, readme);
    const rows = tableRows(text);
    assertEquals(rows.length, 10);
    const inForce = defaults();
    for (const { name, cells } of rows) {
      assert(isSetting(name), name);
      assertEquals(cells[0]!.replaceAll("`", ""), inForce[name] ?? "", `default of ${name}`);
    }
  }
});

Deno.test("each page of docs/ opens with who needs it, and the README links to each", () => {
  for (const page of PAGES) {
    assert(/^# .+\n\nFor anyone who(?:se)? /.test(read(page)), page);
    assert(read("README.md").includes(`](${page})`), page);
  }
  for (const page of markdownIn("docs/zh-CN")) {
    assert(/^# .+\n\n适用于/.test(read(page)), page);
    assert(read("README.zh-CN.md").includes(`](${page})`), page);
  }
});

/** Registries that the documents add for an example. */
const ADDED = ["CORP", "HUB"];

/** Whether the program has the setting `name`, one of a registry's included, or `name` is what it ends with. */
function isSetting(name: string): boolean {
  if (SETTINGS.includes(name) || UPSTREAM_SUFFIXES.some((suffix) => suffix === `_${name}`)) {
    return true;
  }
  const registries = parseConfig({}).registries
    .map((registry) => registry.name.toUpperCase().replaceAll("-", "_")).concat(ADDED);
  return registries.some((registry) =>
    ["", ...UPSTREAM_SUFFIXES].some((suffix) => name === `UPSTREAM_${registry}${suffix}`)
  );
}

Deno.test("every setting that a document names exists", () => {
  for (const document of DOCUMENTS) {
    const text = read(document).replaceAll(/“[^”]*”/g, "");
    for (const [name] of text.matchAll(/(?<![\w<>/-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+_?(?![\w<])/g)) {
      assert(isSetting(name) || name in NOT_SETTINGS, `${document}: ${name}`);
    }
  }
});

Deno.test(".env.example names every setting with its default, and loads", () => {
  const file = parse(read(".env.example"));
  assertEquals(Object.keys(file).toSorted(), SETTINGS.toSorted());
  const inForce = defaults();
  for (const name of SETTINGS) assertEquals(file[name], inForce[name] ?? "", name);
  assertEquals(describeConfig(parseConfig(file)), describeConfig(parseConfig({})));
});

Deno.test(".env.example shows every setting of a registry, commented out", () => {
  const text = read(".env.example");
  for (const suffix of UPSTREAM_SUFFIXES) {
    assert(new RegExp(`^# UPSTREAM_[A-Z]+${suffix}=`, "m").test(text), suffix);
  }
});

for (const [chinese, english] of TRANSLATIONS) {
  Deno.test(`${chinese} mirrors ${english}: headings, tables and examples`, () => {
    const [own, original] = [read(chinese), read(english)];
    assertEquals(headings(own), headings(original));
    assertEquals(tableShape(own), tableShape(original));
    assertEquals(withoutComments(own), withoutComments(original));
  });
}

/** How many rows each table has, and the names that are the same in every language. */
function tableShape(text: string): string[][] {
  return [...text.matchAll(/(?:^\|.*\|\n)+/gm)].map(([table]) =>
    table.trimEnd().split("\n").map((row) => /^\| `[^`]+`/.exec(row)?.[0] ?? "|")
  );
}

/** The examples without what is written in somebody's language. */
function withoutComments(text: string): { language: string; code: string }[] {
  return examplesOf(text).map(({ language, code }) => ({
    language,
    code: code.replaceAll(/\s+#.*$/gm, ""),
  }));
}

Deno.test("examples of JSON, TOML and YAML can be read", () => {
  const parsers: Record<string, (text: string) => unknown> = {
    json: JSON.parse,
    toml: parseToml,
    yaml: parseYaml,
  };
  let count = 0;
  for (const document of DOCUMENTS) {
    for (const { language, code } of examplesOf(read(document))) {
      const parseExample = parsers[language];
      if (!parseExample) continue;
      assert(parseExample(code), code);
      count++;
    }
  }
  assertGreater(count, 10);
});

Deno.test("docs/operations.md lists the commands and flags of the program", () => {
  const text = section(read("docs/operations.md"), "## Commands");
  const listed = [...text.matchAll(/^deno-docker-proxy (?:\[(\w+)\]|(\w+))/gm)]
    .map(([, bracketed, plain]) => bracketed ?? plain!);
  assertEquals([...new Set(listed)].toSorted(), COMMANDS.toSorted());
  const flags = [...text.matchAll(/^\| (`--[^|]+) \|/gm)]
    .flatMap(([, cell = ""]) => [...cell.matchAll(/--([\w-]+)/g)].map(([, flag]) => flag!));
  assertEquals(flags.toSorted(), Object.keys(FLAGS).toSorted());
  const asks = `${CACHE_COMMANDS.map((name) => `\`${name}\``).join(", ")}`.replace(
    /, (`\w+`)$/,
    " and $1",
  );
  assert(text.replaceAll(/\s+/g, " ").includes(`${asks} therefore ask the instance`), asks);
});

Deno.test("every command line that a document shows can be read", () => {
  let count = 0;
  for (const document of DOCUMENTS) {
    const shown = read(document).matchAll(
      /(?<=[`\n]|CONTAINER )(?:deno task start|deno run -A main\.ts|deno-docker-proxy)((?: [\w:/.,=-]+)+)(?=[`\n]|\s{2,}#)/g,
    );
    for (const [, rest = ""] of shown) {
      // A name in capitals stands for what a reader puts there.
      const args = rest.trim().split(" ").map((arg) => arg === "CLIENT" ? "docker" : arg);
      if (args[0] === "IMAGE..." || document === "CHANGELOG.md") continue;
      assertEquals(readCommandLine(args).problems, [], `${document}: ${rest}`);
      count++;
    }
  }
  assertGreater(count, 10);
});

Deno.test("every task that a document names exists, and every task is documented", () => {
  const { tasks } = JSON.parse(read("deno.json")) as { tasks: Record<string, string> };
  const named = DOCUMENTS.flatMap((document) =>
    [...read(document).matchAll(/(?:deno|deno@[\d.]+) task (\w+)/g)].map(([, task]) => task!)
  );
  assertEquals([...new Set(named)].toSorted(), Object.keys(tasks).toSorted());
});

Deno.test("docs/operations.md lists the metrics with their labels, events and reasons", async () => {
  const { families, labels, values } = await metricsOfAProxy();
  const page = read("docs/operations.md");
  const rows = tableRows(page, /registry_proxy_[a-z_]+/);
  assertEquals(rows.map(({ name }) => name).toSorted(), families.toSorted());
  for (const { name, cells } of rows) {
    const own = labels.get(name);
    if (own) assertEquals(cells[0]!.replaceAll("`", ""), own.join(", "), name);
    assert(cells[1], name);
  }
  const listed = (heading: string) => {
    const [, table = ""] = page.split(`\n| ${heading} | meaning |\n`);
    const names = table.split("\n\n")[0]!.split("\n").map((row) => row.split(" | ")[0]!);
    return names.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name!));
  };
  assertEquals(listed("event").toSorted(), values("cache_events_total").toSorted());
  assertEquals(listed("reason").toSorted(), values("rejected_total").toSorted());
});

Deno.test("every metric that a document names exists", async () => {
  const { families } = await metricsOfAProxy();
  for (const document of DOCUMENTS) {
    for (
      const [name] of read(document).matchAll(
        /(?:registry_proxy_)?\b[a-z_]+_(?:total|seconds|bytes)\b/g,
      )
    ) {
      const full = name.startsWith("registry_proxy_") ? name : `registry_proxy_${name}`;
      assert(families.includes(full), `${document}: ${name}`);
    }
  }
});

/** The metrics of a proxy that has answered a request: names, labels by name, and values of the only label of one. */
async function metricsOfAProxy() {
  await using registry = await startFakeRegistry();
  registry.control.quota = { limit: 100, window: 3600, remaining: 50 };
  registry.add("team/app", "1", makeImage());
  await using proxy = await startTestProxy({ upstreams: { docker: registry } });
  await whole(`${proxy.url}/v2/team/app/manifests/1`);
  const { text } = await new Metrics(proxy.proxy).render();
  const families = [...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name!);
  const labels = new Map<string, string[]>();
  const samples = text.matchAll(/^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$/gm);
  for (const [, name = "", pairs = ""] of samples) {
    const names = [...pairs.matchAll(/(\w+)="/g)].map(([, label]) => label!);
    labels.set(name, names.filter((label) => label !== "le"));
  }
  const values = (name: string) =>
    [...text.matchAll(new RegExp(`^registry_proxy_${name}\\{\\w+="(\\w+)"\\}`, "gm"))]
      .map(([, value]) => value!);
  return { families, labels, values };
}

Deno.test("every folder of contrib/ is in the documents", () => {
  const texts = PAGES.map(read).join("\n");
  for (const { name } of Deno.readDirSync(join(ROOT, "contrib"))) {
    assert(texts.includes(`](../contrib/${name}`), name);
  }
});

Deno.test("every path of the API that a document names exists", () => {
  const { paths } = JSON.parse(read("lib/admin/openapi.json")) as {
    paths: Record<string, unknown>;
  };
  for (const document of DOCUMENTS) {
    for (const [, path = ""] of read(document).matchAll(/`(\/api\/[a-z./-]+)`/g)) {
      assert(path in paths, `${document}: ${path}`);
    }
  }
});

Deno.test("the compose file sets only what the program knows, and stops later than it", async () => {
  const { services } = parseYaml(read("compose.yaml")) as {
    services: { proxy: { environment: Record<string, string>; stop_grace_period: string } };
  };
  const { environment, stop_grace_period: grace } = services.proxy;
  for (const name of Object.keys(environment)) assert(SETTINGS.includes(name), name);
  assertEquals(environment["CACHE_DIR"], "/cache");
  // The rest of compose's own defaults are the program's.
  const values = Object.entries(environment).map(([name, value]) => [
    name,
    value.replace(/^\$\{\w+:-(.*)\}$/, "$1"),
  ]);
  const composed = parseConfig({ ...Object.fromEntries(values), CACHE_DIR: undefined });
  assertEquals(describeConfig(composed), describeConfig(parseConfig({})));
  // A copy of the example, which compose hands over whole, changes nothing of what the container depends on.
  const { parse } = await import("dotenv");
  const own = parseConfig({ ...parse(read(".env.example")), ...Object.fromEntries(values) });
  assertEquals([own.listen.host, own.listen.port, own.cache?.dir], ["0.0.0.0", 8080, "/cache"]);
  assertGreater(parseDuration(grace), parseConfig({}).shutdownTimeout);
});

Deno.test("the compose file for several instances is one that they start with", () => {
  const { services } = parseYaml(read("contrib/compose/compose.yaml")) as {
    services: { proxy: { environment: Record<string, string>; stop_grace_period: string } };
  };
  const { environment, stop_grace_period: grace } = services.proxy;
  const values = Object.entries(environment).map(([name, value]) => [
    name,
    value.replace(/^\$\{\w+:[-?](.*)\}$/, "$1"),
  ]);
  for (const [name] of values) assert(SETTINGS.includes(name!), name);
  const { cache } = parseConfig(Object.fromEntries(values));
  assertEquals([cache?.store.engine, cache?.index.engine], ["s3", "redis"]);
  assertGreater(parseDuration(grace), parseConfig({}).shutdownTimeout);
});

Deno.test("the systemd unit is one, and stops later than the program", async () => {
  const unit = "contrib/systemd/deno-docker-proxy.service";
  const [, seconds] = /^TimeoutStopSec=(\d+)$/m.exec(read(unit))!;
  assertGreater(Number(seconds) * 1000, parseConfig({}).shutdownTimeout);
  const analyze = which("systemd-analyze");
  if (!analyze) return;
  const { stderr } = await run(analyze, ["verify", join(ROOT, unit)]);
  const complaints = stderr.split("\n").filter((line) =>
    line.includes("deno-docker-proxy") && !line.includes("is not executable")
  );
  assertEquals(complaints, []);
});

Deno.test("relative links and their anchors resolve", () => {
  const anchorsOf = (text: string) =>
    new Set(
      [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
        title.toLowerCase().replaceAll(/[^\p{L}\p{N} -]/gu, "").replaceAll(" ", "-")
      ),
    );
  for (const document of DOCUMENTS) {
    for (const [, link = ""] of read(document).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? document : join(dirname(document), path);
      const info = Deno.statSync(join(ROOT, target)); // throws where there is none
      if (anchor === undefined) continue;
      assert(info.isFile, `${document}: ${link}`);
      assert(anchorsOf(read(target)).has(anchor), `${document}: ${link}`);
    }
  }
});

Deno.test("documents that other files name exist", () => {
  const files = ["lib", "contrib", "tests", "bench", "scripts", "std", ".github"].flatMap(walk)
    .concat("main.ts", "mod.ts", "compose.yaml", "Dockerfile", ".env.example");
  for (const file of files) {
    if (!/\.(?:ts|js|ya?ml|nix|env|service|conf|example)$|Dockerfile$/.test(file)) continue;
    for (const [path] of read(file).matchAll(/(?<![\w./-])docs\/[\w/-]+\.md/g)) {
      assert(DOCUMENTS.includes(path), `${file}: ${path}`);
    }
  }
});

Deno.test("every path that a document names exists", () => {
  for (const document of DOCUMENTS) {
    const named = read(document).matchAll(/`((?:lib|tests|std|scripts|contrib|bench)\/[\w./-]+)`/g);
    for (const [, path = ""] of named) Deno.statSync(join(ROOT, path));
  }
});

Deno.test("every source file that ARCHITECTURE.md names exists, and it opens with a picture", () => {
  const text = read("ARCHITECTURE.md");
  assert(text.startsWith("# Architecture\n\n```mermaid\nflowchart "));
  const files = ["lib", "tests", "std"].flatMap(walk).concat("main.ts", "mod.ts");
  const named = [...text.matchAll(/`((?:[\w-]+\/)*[\w-]+\.ts)`/g)].map(([, path = ""]) => path);
  assertGreater(named.length, 30);
  const missing = named.filter((path) => !files.some((file) => `/${file}`.endsWith(`/${path}`)));
  assertEquals(missing, []);
});

Deno.test("each promise of SECURITY.md has a test, and the tests it names exist", () => {
  const [, table = ""] = /^## Promises$([^]*?)^## /m.exec(read("SECURITY.md"))!;
  const rows = table.split("\n").filter((line) => /^\| [^-]/.test(line)).slice(1);
  assertGreater(rows.length, 15);
  for (const row of rows) {
    const shown = [...row.matchAll(/`(tests\/[\w./-]+)`: “([^”]+)”/g)];
    assertGreater(shown.length, 0, row);
    for (const [, path = "", name = ""] of shown) {
      assert(read(path).includes(name), `${path}: ${name}`);
    }
  }
});

Deno.test("ARCHITECTURE.md names every file of lib/ in its room, and no other", () => {
  const [, tree = ""] = /^```\n(main\.ts[^]*?)^```$/m.exec(read("ARCHITECTURE.md"))!;
  const rooms = new Map<string, string>();
  const path: { indent: number; name: string }[] = [];
  for (const line of tree.split("\n")) {
    const [, blanks = "", name, rest = ""] = /^( *)([\w/]+\/)?(.*)$/.exec(line)!;
    if (name) {
      while (path.length > 0 && path.at(-1)!.indent >= blanks.length) path.pop();
      path.push({ indent: blanks.length, name });
    }
    const room = path.map((folder) => folder.name).join("");
    rooms.set(room, `${rooms.get(room) ?? ""} ${rest}`);
  }
  const files = walk("lib").filter((file) => file.endsWith(".ts"));
  const missing = files.filter((file) => {
    const [, room = "", name = ""] = /^(.*\/)(\w+)\.ts$/.exec(file)!;
    return !new RegExp(`\\b${name}\\b`).test(rooms.get(room) ?? "");
  });
  assertEquals(missing, []);
  const folders = new Set(files.map((file) => file.replace(/\w+\.ts$/, "")));
  const unknown = [...rooms.keys()].filter((room) =>
    room.startsWith("lib/") && ![...folders].some((folder) => folder.startsWith(room)) &&
    room !== "lib/admin/page/"
  );
  assertEquals(unknown, []);
});
