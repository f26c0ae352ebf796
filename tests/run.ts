/**
 * `deno task test`: first the tests that share nothing, in parallel by file; then those of tests/e2e, which
 * start real servers and clients, one file after the other. Arguments narrow that down: paths choose files, all
 * others go to `deno test`: `deno task test tests/oci --filter digest`.
 *
 * @module
 */
import { fromFileUrl, join, resolve } from "@std/path";

const ROOT = fromFileUrl(new URL("..", import.meta.url));
const TESTS = join(ROOT, "tests");
const E2E = join(TESTS, "e2e");

/** A run that takes longer hangs: tests have no time limit of their own. */
const LIMIT_MS = 20 * 60_000;

/** What one run of `deno test` came to. */
interface Outcome {
  readonly passed: number;
  readonly failed: number;
  /** Names, with what they need in parentheses. */
  readonly skipped: readonly string[];
  readonly isGood: boolean;
}

/** Arguments that exist are paths, made absolute; `--` only separates. */
function readArguments(args: readonly string[]): { paths: string[]; options: string[] } {
  const paths: string[] = [];
  const options: string[] = [];
  for (const arg of args) {
    if (arg === "--") continue;
    if (!arg.startsWith("-") && exists(resolve(arg))) paths.push(resolve(arg));
    else options.push(arg);
  }
  return { paths, options };
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
}

function isWithin(path: string, folder: string): boolean {
  return join(path, "x").startsWith(join(folder, "/"));
}

/** Installs what the end-to-end tests drive, where that can be done; they tell what is missing themselves. */
async function install(): Promise<void> {
  if (Deno.build.os === "windows") return;
  const script = join(E2E, "install.sh");
  await new Deno.Command("sh", { args: [script], stdin: "null" }).spawn().status;
}

/** Runs `deno test`, showing what it prints as it comes. */
async function test(args: readonly string[]): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    // Reading a process's own figures in /proc takes every permission there is.
    args: ["test", "--allow-all", "--permit-no-files", ...args],
    env: Deno.stdout.isTerminal() ? { FORCE_COLOR: "1" } : {},
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
    signal: AbortSignal.timeout(LIMIT_MS),
  }).spawn();
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of child.stdout) {
    for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
    text += decoder.decode(bytes, { stream: true });
  }
  const { success } = await child.status;
  return outcomeOf(text, success);
}

/** Reads the lines of the pretty reporter: `name ... ignored (0ms)` and, last, `ok | 2 passed | 0 failed (1s)`. */
function outcomeOf(output: string, isGood: boolean): Outcome {
  // deno-lint-ignore no-control-regex
  const lines = output.replace(/\x1b\[[\d;]*m/g, "").split("\n");
  const skipped = lines.flatMap((line) => {
    const name = /^(?:\S+ => )?(.*) \.\.\. ignored\b/.exec(line)?.[1];
    return name === undefined ? [] : [name];
  });
  const last = lines.map((line) => /^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed/.exec(line))
    .findLast((found) => found !== null);
  const failed = Number(last?.[2] ?? 0);
  return {
    passed: Number(last?.[1] ?? 0),
    // A file that does not compile, or a run that was cut off, has no line to say so.
    failed: isGood || failed > 0 ? failed : 1,
    skipped,
    isGood,
  };
}

const { paths, options } = readArguments(Deno.args);
const all = paths.length === 0;
const isE2e = (path: string) => isWithin(path, E2E);
const units = all ? [TESTS] : paths.filter((path) => !isE2e(path));
const e2e = all ? [E2E] : paths.filter((path) => isE2e(path) || isWithin(E2E, path))
  .map((path) => isE2e(path) ? path : E2E);

// All of them, whatever the ones before found: one look at the end tells everything.
const outcomes: Outcome[] = [];
if (units.length > 0) {
  outcomes.push(await test(["--parallel", `--ignore=${E2E}`, ...options, ...units]));
}
if (e2e.length > 0) {
  await install();
  outcomes.push(await test([...options, ...e2e]));
}

const sum = (count: (outcome: Outcome) => number) =>
  outcomes.reduce((total, outcome) => total + count(outcome), 0);
const skipped = outcomes.flatMap((outcome) => outcome.skipped);
for (const name of skipped) console.log(`skipped: ${name}`);
const counts = [`${sum((o) => o.passed)} passed`, `${sum((o) => o.failed)} failed`];
if (skipped.length > 0) counts.push(`${skipped.length} skipped`);
console.log(counts.join(", "));
Deno.exit(outcomes.every((outcome) => outcome.isGood) ? 0 : 1);
