import { Buffer } from "node:buffer";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { run } from "./support/process.ts";
import { baseEnv, ROOT, startCommand } from "./support/proxy_process.ts";
import { tempDir } from "./support/temp.ts";

const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json"))) as {
  tasks: Record<string, string>;
};

/** The files of a folder, all the way down, as paths from the project. */
function filesOf(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesOf(`${folder}/${name}`) : [`${folder}/${name}`]
  );
}

/** The compile task, with further flags. */
async function compile(flags: readonly string[]) {
  const script = tasks["compile"]!.split(" ").slice(1);
  return await run(Deno.execPath(), [...script, ...flags], {
    cwd: ROOT,
    clearEnv: true,
    // The base executable comes from the network, which tests do without; deno itself stands in for it.
    env: { ...baseEnv(), DENORT_BIN: await Deno.realPath(Deno.execPath()) },
  });
}

Deno.test("start and compile name the permissions they give, the same for both", async () => {
  for (const name of ["start", "compile", "dev"]) {
    assert(!/(^|\s)(-A|--allow-all)(\s|$)/.test(tasks[name]!), name);
  }
  const granted = tasks["compile"]!.split("scripts/compile.ts ")[1]!.split(" ");
  const started = (await startCommand()).filter((word) => word.startsWith("--allow-"));
  assertEquals(granted, started);
});

Deno.test("the compile task builds an executable with every module and the page in it", async () => {
  await using dir = await tempDir();
  const target = `${Deno.build.arch}-unknown-linux-gnu`;
  const { code, stderr } = await compile(["--target", target, "--output", dir.path]);
  assertEquals(code, 0, stderr);
  const made = [...Deno.readDirSync(dir.path)].map(({ name }) => name);
  assertEquals(made, [`deno-docker-proxy-linux-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`]);
  // Packages that are imported only when they are needed.
  for (const name of ["tldts", "dotenv", "redis"]) {
    assertMatch(stderr, new RegExp(`── ${name}/`), `${name} is not embedded`);
  }
  // Older ones embed every package that deno.json names.
  const { stdout: help } = await run(Deno.execPath(), ["compile", "--help"]);
  const canSpare = help.includes("--exclude-unused-npm");
  assertEquals(/── (fast-check|playwright-core)/.test(stderr), !canSpare, "packages of tests");
  // Searched from its end: what is embedded comes after deno itself.
  const executable = Buffer.from(await Deno.readFile(join(dir.path, made[0]!)));
  const files = ["main.ts", ...filesOf("lib")];
  assert(files.includes("lib/admin/page/index.html"));
  for (const path of files) {
    const bytes = Buffer.from(await Deno.readFile(join(ROOT, path)));
    // Of what holds nothing but types nothing is left.
    const isTypes = path.endsWith(".ts") &&
      !/^(export )?(async )?(const|let|function|class)\b/m.test(bytes.toString());
    assert(isTypes || executable.lastIndexOf(bytes) >= 0, `${path} is not embedded`);
  }
});

Deno.test("the compile task refuses a target it does not know, and says which it does", async () => {
  const { code, stderr } = await compile(["--target", "pdp11"]);
  assertEquals(code, 2);
  assertMatch(stderr, /^Unknown target: pdp11: expected x86_64-unknown-linux-gnu, /);
});
