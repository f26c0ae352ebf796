import { assert, assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { ROOT } from "./support/proxy_process.ts";

/** The rooms of lib/, from the top: a file imports from its own room or from rooms below it. */
const ROOMS = [
  "commands",
  "admin",
  "operator",
  "server",
  "proxy",
  "warm",
  "cache",
  "cache/cluster",
  "cache/content",
  "cache/index",
  "cache/store/s3",
  "cache/store",
  "upstream",
  "upstream/download",
  "upstream/transport",
  "limits",
  "auth",
  "response",
  "request",
  "transforms",
  "config",
  "oci",
  "telemetry",
  "util",
] as const;

interface Import {
  readonly from: string;
  readonly to: string;
}

/** The modules of a folder, all the way down, as paths from the project. */
function modulesOf(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? modulesOf(path) : name.endsWith(".ts") ? [path] : [];
  });
}

/** What a module of lib/ imports from lib/, types included, at the start or later. */
function importsOf(path: string): Import[] {
  const text = Deno.readTextFileSync(join(ROOT, path));
  const specifiers = text.matchAll(/\b(?:from|import\()\s*"(\.{1,2}\/[^"]+)"/g);
  return [...specifiers].map(([, specifier = ""]) => ({
    from: path,
    to: join(dirname(path), specifier),
  })).filter(({ to }) => to.startsWith("lib/"));
}

/** The room of a module: the longest that its folder is in. */
function roomOf(path: string): string | undefined {
  const folder = dirname(path).slice("lib/".length);
  return ROOMS.filter((room) => folder === room || folder.startsWith(`${room}/`))
    .toSorted((a, b) => b.length - a.length)[0];
}

/** Imports that go up. */
function upward(imports: readonly Import[]): string[] {
  const rank = (path: string) => ROOMS.findIndex((room) => room === roomOf(path));
  return imports.filter(({ from, to }) => rank(to) < rank(from)).map(({ from, to }) =>
    `${from} -> ${to}`
  );
}

/** Tests of a whole room: they name no module. */
const OF_ROOMS = [
  "tests/admin/openapi_test.ts",
  "tests/cache/crash_test.ts",
  "tests/commands/program_test.ts",
];

const modules = modulesOf("lib");
const imports = modules.flatMap(importsOf);

Deno.test("every module of lib/ is in a room", () => {
  assertEquals(modules.filter((path) => roomOf(path) === undefined), []);
});

Deno.test("imports go down the list of rooms only", () => {
  assert(imports.length > 500, "the imports were not found");
  assertEquals(upward(imports), []);
});

Deno.test("an import that goes up is found", () => {
  const wrong = { from: "lib/util/lru.ts", to: "lib/cache/store/redis.ts" };
  assertEquals(upward([wrong]), ["lib/util/lru.ts -> lib/cache/store/redis.ts"]);
});

Deno.test("every test of a module lies where its module does", () => {
  const known = new Set(modules);
  const rooms = new Set(modules.map((path) => dirname(path)));
  const astray = modulesOf("tests").filter((path) => path.endsWith("_test.ts"))
    .filter((path) => rooms.has(dirname(path).replace("tests", "lib")))
    // Those of the proxy are by what a client sees of it.
    .filter((path) => !path.startsWith("tests/proxy/") && !OF_ROOMS.includes(path))
    .filter((path) => !known.has(path.replace("tests", "lib").replace("_test.ts", ".ts")));
  assertEquals(astray, []);
});
