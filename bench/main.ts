/**
 * Side by side with what people would use instead: `deno task bench [-- NAME…] [--quick] [--write]
 * [--minutes=N]`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { join } from "@std/path";
import { run as runProgram } from "../tests/support/process.ts";
import { ROOT } from "../tests/support/proxy_process.ts";
import { which } from "../tests/support/requirements.ts";
import { removeDir } from "../tests/support/temp.ts";
import { Peers } from "./peers.ts";
import {
  json,
  type Machine,
  markdown,
  type Measured,
  merge,
  parseJson,
  withTable,
} from "./report.ts";
import type { Row } from "./row.ts";
import { attacks } from "./rows/attack.ts";
import { blobRows } from "./rows/blobs.ts";
import { cold, coldSlow, crowd } from "./rows/cold.ts";
import { manifestByDigest, manifestByTag, manifestHead, smallBlobs } from "./rows/hits.ts";
import { indexScale } from "./rows/index_scale.ts";
import { manyTags } from "./rows/many_tags.ts";
import { idle, slowClients, startUp } from "./rows/memory.ts";
import { dockerPull, skopeoCopy } from "./rows/pulls.ts";
import { scale } from "./rows/scale.ts";
import { soak } from "./rows/soak.ts";
import { startUpstream } from "./upstream.ts";

/** In the order of the table. */
const ROWS: readonly Row[] = [
  manifestByTag,
  manifestByDigest,
  manifestHead,
  ...blobRows,
  smallBlobs,
  cold,
  coldSlow,
  crowd,
  dockerPull,
  skopeoCopy,
  idle,
  slowClients,
  startUp,
  attacks,
  scale,
  indexScale,
  manyTags,
  soak,
];

/** As the issue that asks for it says. */
const MINUTES = 10;

const DOCUMENT = join(ROOT, "BENCHMARKS.md");
const LAST = join(ROOT, "bench/last.json");

const HELP = `deno task bench [-- NAME…] [--quick] [--write] [--minutes=N]

  NAME…        only these rows; without, all but those with a star
  --quick      few and short rounds, not to be written: to see that it works, not how fast
  --write      put the table into BENCHMARKS.md and bench/last.json; rows that are not measured stay as they are
  --minutes=N  how long the soak takes [${MINUTES}]

Rows:
${
  ROWS.map(({ name, title, onDemand }) =>
    `  ${(onDemand ? `${name} *` : name).padEnd(16)} ${title}`
  )
    .join("\n")
}
`;

function say(text: string): void {
  console.error(text);
}

/** The rows that were asked for. Throws a `RangeError` for a name that is none. */
function chosen(names: readonly string[]): readonly Row[] {
  if (names.length === 0) return ROWS.filter(({ onDemand }) => !onDemand);
  return names.map((name) => {
    const row = ROWS.find((one) => one.name === name);
    if (!row) throw new RangeError(`Unknown row: ${name}\n\n${HELP}`);
    return row;
  });
}

async function machineOf(rounds: number): Promise<Machine> {
  const read = (path: string) => Deno.readTextFileSync(path);
  const version = async (name: string, command: string, args: string[]) => {
    if (!which(command)) return [];
    const { stdout, stderr } = await runProgram(which(command)!, args);
    const found = /v?\d+\.\d+[\w.+-]*/.exec(stdout + stderr)?.[0];
    return [`${name} ${found}`];
  };
  return {
    cpu: /model name\s*: (.*)/.exec(read("/proc/cpuinfo"))?.[1] ?? "an unknown processor",
    cores: navigator.hardwareConcurrency,
    memory: `${Math.round(Number(/\d+/.exec(read("/proc/meminfo"))![0]) / 2 ** 20)} GiB`,
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
    peers: [
      ...await version("nginx", "nginx", ["-v"]),
      ...await version("Debian's docker-registry", "docker-registry", ["--version"]),
      ...await version("distribution", "registry", ["--version"]),
      ...await version("Docker", "docker", ["--version"]),
      ...await version("skopeo", "skopeo", ["--version"]),
    ],
    rounds,
    date: new Date().toISOString().slice(0, 10),
  };
}

async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: args.filter((arg) => arg !== "--"),
    options: {
      quick: { type: "boolean" },
      write: { type: "boolean" },
      minutes: { type: "string", default: String(MINUTES) },
      help: { type: "boolean", short: "h" },
    },
    allowPositionals: true,
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (values.quick && values.write) {
    throw new RangeError("--quick: Not with --write: the table has what was measured in full");
  }
  const minutes = Number(values.minutes);
  if (!Number.isInteger(minutes) || minutes < 1) {
    throw new RangeError(`--minutes: Expected a whole number, 1 at least: ${values.minutes}`);
  }
  const absent = ["wrk", "curl", "nginx"].filter((tool) => !which(tool));
  if (absent.length > 0) throw new Error(`Not installed: ${absent.join(", ")}`);
  const rows = chosen(positionals);
  const rounds = values.quick ? 2 : 5;
  const dir = await Deno.makeTempDir({ prefix: "bench-" });
  const upstream = await startUpstream(dir);
  const peers = new Peers(dir, upstream);
  const measured: Measured[] = [];
  const failed: string[] = [];
  try {
    for (const row of rows) {
      say(`${row.name}: ${row.title}`);
      const seconds = values.quick ? 1 : 2;
      try {
        const outcome = await row.run({ upstream, peers, rounds, seconds, minutes, say });
        measured.push({ row, outcome });
      } catch (error) {
        // A quarter of an hour of other measurements is not lost with it.
        say(`  failed: ${(error as Error).stack}`);
        failed.push(row.name);
      }
    }
  } finally {
    await upstream.stop();
    await removeDir(dir);
  }
  const machine = await machineOf(rounds);
  console.log(markdown(measured, machine));
  if (values.write) await write(measured, machine);
  if (failed.length > 0) say(`Failed: ${failed.join(", ")}`);
  return failed.length > 0 ? 1 : 0;
}

/** Puts what was measured beside what was before. */
async function write(measured: readonly Measured[], machine: Machine): Promise<void> {
  const last = await Deno.readTextFile(LAST).then(parseJson, () => []);
  const all = merge(last, measured, ROWS.map(({ name }) => name));
  await Deno.writeTextFile(LAST, json(all, machine));
  const document = await Deno.readTextFile(DOCUMENT);
  await Deno.writeTextFile(DOCUMENT, withTable(document, markdown(all, machine)));
}

if (import.meta.main) Deno.exit(await main(Deno.args));
