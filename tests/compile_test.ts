import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { run } from "./support/process.ts";
import { baseEnv, ROOT, startCommand } from "./support/proxy_process.ts";
import { tempDir } from "./support/temp.ts";

const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json"))) as {
  tasks: Record<string, string>;
};

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

Deno.test("the compile task builds an executable with every module in it", async () => {
  await using dir = await tempDir();
  const target = `${Deno.build.arch}-unknown-linux-gnu`;
  const { code, stderr } = await compile(["--target", target, "--output", dir.path]);
  assertEquals(code, 0, stderr);
  const made = [...Deno.readDirSync(dir.path)].map(({ name }) => name);
  assertEquals(made, [`deno-docker-proxy-linux-${Deno.build.arch === "x86_64" ? "x64" : "arm64"}`]);
  // What is imported only when it is needed is in it too.
  for (const file of ["main.ts", "cache.ts", "sqlite_index.ts", "tldts", "dotenv"]) {
    assertMatch(stderr, new RegExp(`── ${file}`), `${file} is not embedded`);
  }
});

Deno.test("the compile task refuses a target it does not know, and says which it does", async () => {
  const { code, stderr } = await compile(["--target", "pdp11"]);
  assertEquals(code, 2);
  assertMatch(stderr, /^Unknown target: pdp11: expected x86_64-unknown-linux-gnu, /);
});
