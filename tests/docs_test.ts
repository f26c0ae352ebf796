import { assert, assertEquals, assertGreater } from "@std/assert";
import { dirname, join } from "@std/path";
import { parse as parseToml } from "@std/toml";
import { parse as parseYaml } from "@std/yaml";
import { parse } from "dotenv";
import { parseConfig, SETTINGS, UPSTREAM_SUFFIXES } from "../lib/config/config.ts";
import { describeConfig } from "../lib/config/describe.ts";
import { parseDuration } from "../lib/util/units.ts";
import { run } from "./support/process.ts";
import { ROOT } from "./support/proxy_process.ts";
import { which } from "./support/requirements.ts";

const READMES = ["README.md", "README.zh-CN.md"] as const;
const DOCUMENTS = [...READMES, "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"] as const;

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

/** Rows of the tables with backquoted names in their first column. */
function tableRows(text: string): { name: string; cells: string[] }[] {
  return [...text.matchAll(/^\| `([A-Z][A-Z0-9_<>]*)` \|(.*)\|$/gm)].map((
    [, name = "", rest = ""],
  ) => ({
    name,
    cells: rest.split(" | ").map((cell) => cell.replaceAll("|", "").trim()),
  }));
}

function headings(text: string): string[] {
  const prose = text.replaceAll(/^```[^]*?^```$/gm, "");
  return [...prose.matchAll(/^(#+) .+$/gm)].map(([, marks = ""]) => marks);
}

for (const readme of READMES) {
  Deno.test(`the settings of ${readme} are those of the program, with their defaults`, () => {
    const rows = tableRows(read(readme)).filter(({ name }) => !name.startsWith("UPSTREAM_<"));
    assertEquals(rows.map(({ name }) => name).toSorted(), SETTINGS.toSorted());
    const inForce = defaults();
    for (const { name, cells } of rows) {
      assertEquals(cells.length, 2, `${name}: expected a default and a meaning`);
      assertEquals(cells[0]!.replaceAll("`", ""), inForce[name] ?? "", `default of ${name}`);
      assert(cells[1], `${name} has no meaning`);
    }
  });

  Deno.test(`the settings of a registry in ${readme} are those of the program`, () => {
    const rows = tableRows(read(readme)).filter(({ name }) => name.startsWith("UPSTREAM_<NAME>"));
    assertEquals(
      rows.map(({ name }) => name.slice("UPSTREAM_<NAME>".length)).toSorted(),
      ["", ...UPSTREAM_SUFFIXES].toSorted(),
    );
  });
}

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

Deno.test("both READMEs have the same headings, level by level", () => {
  assertEquals(headings(read(READMES[1])), headings(read(READMES[0])));
});

Deno.test("both READMEs have the same examples, but for their comments", () => {
  const examples = (text: string) =>
    [...text.matchAll(/^```(\w*)\n([^]*?)^```$/gm)].map(([, language, code = ""]) => [
      language,
      // A command's explanation stands after several spaces.
      code.replaceAll(/^\s*#.*$/gm, "").replaceAll(/\s{2,}#?\S.*$/gm, "").replaceAll(
        /\s+#.*$/gm,
        "",
      ),
    ]);
  assertEquals(examples(read(READMES[1])), examples(read(READMES[0])));
});

Deno.test("examples of JSON, TOML and YAML can be read", () => {
  const parsers: Record<string, (text: string) => unknown> = {
    json: JSON.parse,
    toml: parseToml,
    yaml: parseYaml,
  };
  let count = 0;
  for (
    const [, language = "", code = ""] of read("README.md").matchAll(/^```(\w+)\n([^]*?)^```$/gm)
  ) {
    const parseExample = parsers[language];
    if (!parseExample) continue;
    assert(parseExample(code), code);
    count++;
  }
  assert(count >= 7, `only ${count}`);
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

Deno.test("every path that ARCHITECTURE.md and SECURITY.md name exists", () => {
  for (const document of ["ARCHITECTURE.md", "SECURITY.md"]) {
    const named = read(document).matchAll(/`((?:lib|tests|std|scripts|contrib|bench)\/[\w./-]+)`/g);
    for (const [, path = ""] of named) Deno.statSync(join(ROOT, path));
  }
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

Deno.test("every file of lib/ is in ARCHITECTURE.md", () => {
  const text = read("ARCHITECTURE.md");
  const walk = (dir: string): string[] =>
    [...Deno.readDirSync(join(ROOT, dir))].flatMap(({ name, isDirectory }) =>
      isDirectory ? walk(`${dir}/${name}`) : [name]
    );
  const files = walk("lib").filter((name) => name.endsWith(".ts"));
  const missing = files.filter((name) =>
    !text.includes(name) && !text.includes(name.replace(".ts", ""))
  );
  assertEquals(missing, []);
});
