/**
 * `verify`: hashes all stored content.
 *
 * @module
 */
import { CacheOpenError, openBackends } from "../cache/cache.ts";
import { Content } from "../cache/content/content.ts";
import type { Backends } from "../cache/backends.ts";
import { IndexLockedError } from "../cache/index/sqlite_file.ts";
import { verify, type VerifyProgress, type VerifyReport } from "../cache/content/verify.ts";
import type { Config } from "../config/config.ts";
import { Stats } from "../telemetry/stats.ts";
import { formatSize } from "../util/units.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { NotRunningError, RemoteOperations } from "./remote.ts";

/** Options for {@linkcode runVerify}. */
export interface VerifyCommandOptions {
  readonly config: Pick<Config, "admin" | "cache" | "listen" | "upstreamIdleTimeout">;
  /** Whether to print the report as one JSON object. */
  readonly json: boolean;
  /** Prints a line of the report. */
  readonly print: (line: string) => void;
  /** Prints a progress line in place of the previous one. Undefined without a terminal. */
  readonly printProgress?: (line: string) => void;
  /** Prints an error that prevents the report. */
  readonly printError: (line: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Verifies the cache, in this process or in the instance that has it open. Returns exit code 0 if all
 * content is intact, 1 if some was damaged or verification failed.
 */
export async function runVerify(options: VerifyCommandOptions): Promise<number> {
  const { json, print } = options;
  try {
    const report = await verifyHere(options) ?? await verifyThere(options);
    if (json) print(JSON.stringify(report));
    else for (const line of describe(report)) print(line);
    return report.wrong === 0 ? 0 : 1;
  } catch (error) {
    const isTold = error instanceof CacheOpenError || error instanceof VerifyError;
    options.printError(isTold ? error.message : `Cannot verify: ${causeOf(error)}`);
    return 1;
  }
}

/** Thrown when the cache cannot be verified. The message is printed as it is. */
class VerifyError extends Error {
  override readonly name = "VerifyError";
}

/** Verifies in this process. Returns undefined if another process has the cache open. */
async function verifyHere(options: VerifyCommandOptions): Promise<VerifyReport | undefined> {
  const { config: { cache, listen, upstreamIdleTimeout: idle }, signal, printProgress } = options;
  if (!cache) throw new VerifyError("Nothing to verify: the cache is off");
  const stats = new Stats();
  let isDamaged = false;
  const events = { onDamaged: () => void (isDamaged = true) };
  let engines: Backends;
  try {
    engines = await openBackends(cache, { events, stats, idle, listen });
  } catch (error) {
    if (!(error instanceof CacheOpenError)) {
      throw new VerifyError(`Cannot open cache: ${causeOf(error)}`);
    }
    if (error.cause instanceof IndexLockedError) return undefined;
    throw error;
  }
  try {
    const { store, index } = engines;
    const content = new Content({ store, index, maxSize: cache.maxSize, idle, stats });
    const onProgress = printProgress && progressPrinter(printProgress);
    const run = () => verify({ content, store, index }, { signal, onProgress });
    return await run().catch(async (error) => {
      if (!isDamaged || !engines.repair) throw error;
      options.printError("The index is damaged, rebuilding it");
      await engines.repair();
      return await run();
    });
  } finally {
    await engines.close();
  }
}

/** Has the running instance verify the cache that only it can open. */
async function verifyThere(options: VerifyCommandOptions): Promise<VerifyReport> {
  const { config: { cache, admin }, signal, printProgress } = options;
  const because = `Another process is using ${cache?.dir}`;
  if (!admin) {
    throw new VerifyError(`${because}, and ADMIN_ADDR is off, so the instance cannot be reached`);
  }
  const instance = new RemoteOperations(admin);
  try {
    await instance.check();
    const onProgress = printProgress && progressPrinter(printProgress);
    return await instance.verify({ signal, onProgress });
  } catch (error) {
    if (!(error instanceof NotRunningError)) throw error;
    throw new VerifyError(`${because}, and it cannot be reached: ${error.message}`);
  }
}

/** Prints at most ten times a second. */
function progressPrinter(print: (line: string) => void): (progress: VerifyProgress) => void {
  let next = 0;
  return ({ bytes, totalBytes, entries, totalEntries, wrong }) => {
    const now = performance.now();
    if (now < next) return;
    next = now + 100;
    const share = totalBytes > 0 ? Math.floor(Math.min(1, bytes / totalBytes) * 100) : 100;
    const of = `${formatSize(bytes)} of ${formatSize(totalBytes)}`;
    print(`${share}%, ${of}, ${entries} of ${totalEntries} entries, ${wrong} wrong`);
  };
}

function* describe(report: VerifyReport): Iterable<string> {
  const { entries, bytes, wrong, found, problems } = report;
  for (const { digest, problem } of problems) yield `${digest}: ${problem}`;
  if (wrong > problems.length) yield `and ${wrong - problems.length} more`;
  if (found > 0) yield `Found ${found} stored entries that were missing from the index`;
  const verdict = wrong === 0
    ? "all right"
    : `${wrong} wrong, moved to quarantine: the next request downloads them again`;
  yield `Verified ${entries} entries, ${formatSize(bytes)}: ${verdict}`;
}
