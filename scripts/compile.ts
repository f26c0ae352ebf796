/**
 * `deno task compile`: builds executables for every platform in dist/, with the permissions that the task
 * names. `--target TRIPLE` (repeatable) limits the platforms.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { fromFileUrl, join } from "@std/path";

const ROOT = fromFileUrl(new URL("..", import.meta.url));
const NAME = "deno-docker-proxy";
/** Files that the program reads besides its modules. */
const EMBEDDED: readonly string[] = ["lib/admin/page"];

const TARGETS: Readonly<Record<string, string>> = {
  "x86_64-unknown-linux-gnu": "linux-x64",
  "aarch64-unknown-linux-gnu": "linux-arm64",
  "x86_64-apple-darwin": "macos-x64",
  "aarch64-apple-darwin": "macos-arm64",
  "x86_64-pc-windows-msvc": "windows-x64.exe",
};

/** Leaves out the packages of tests, where this deno can: older ones embed everything in deno.json. */
async function sparing(): Promise<string[]> {
  const command = new Deno.Command(Deno.execPath(), { args: ["compile", "--help"] });
  const { stdout } = await command.output();
  const flag = "--exclude-unused-npm";
  return new TextDecoder().decode(stdout).includes(flag) ? [flag] : [];
}

/** Builds one executable. Returns whether it succeeded. Deno prints errors to the terminal. */
async function compile(target: string, { permissions, output }: {
  permissions: readonly string[];
  output: string;
}): Promise<boolean> {
  const { success } = await new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: [
      "compile",
      "--frozen",
      ...await sparing(),
      "--no-prompt", // no one can answer a prompt
      "--v8-flags=--expose-gc", // as the start task has it: see lib/util/gc.ts
      // Windows has no one root, so what is given for all drives cannot be given back in part.
      ...target.includes("windows")
        ? permissions.map((flag) => flag.replace(/=\/$/, ""))
        : permissions,
      ...EMBEDDED.flatMap((path) => ["--include", path]),
      ...["--target", target, "--output", output],
      "main.ts",
    ],
  }).spawn().status;
  return success;
}

const { values, positionals } = parseArgs({
  options: { target: { type: "string", multiple: true }, output: { type: "string" } },
  args: Deno.args.filter((arg) => !arg.startsWith("--allow-")),
});
const permissions = Deno.args.filter((arg) => arg.startsWith("--allow-"));
const targets = values.target ?? Object.keys(TARGETS);
const unknown = [...targets.filter((target) => !(target in TARGETS)), ...positionals];
if (unknown.length > 0) {
  console.error(
    `Unknown target: ${unknown.join(" ")}: expected ${Object.keys(TARGETS).join(", ")}`,
  );
  Deno.exit(2);
}
const folder = values.output ?? join(ROOT, "dist");
await Deno.mkdir(folder, { recursive: true });
let failed = 0;
for (const target of targets) {
  const output = join(folder, `${NAME}-${TARGETS[target]}`);
  if (!await compile(target, { permissions, output })) failed++;
}
Deno.exit(failed > 0 ? 1 : 0);
