/**
 * `verify`: hashes everything that is stored.
 *
 * @module
 */
import { CacheOpenError, openEngines } from "../cache/cache.ts";
import { Content } from "../cache/content.ts";
import type { Engines } from "../cache/engines.ts";
import { verify, type VerifyProgress, type VerifyReport } from "../cache/verify.ts";
import type { Config } from "../config.ts";
import { Stats } from "../stats.ts";
import { formatSize } from "../units.ts";
import { causeOf } from "../upstream/send.ts";

/** Options for {@linkcode runVerify}. */
export interface VerifyCommandOptions {
  readonly config: Pick<Config, "cache" | "listen" | "upstreamIdleTimeout">;
  /** Whether the report is one JSON object. */
  readonly json: boolean;
  /** Takes a line of the report. */
  readonly print: (line: string) => void;
  /** Takes a line for people that replaces the one before it; absent where there is no terminal. */
  readonly printProgress?: (line: string) => void;
  /** Takes a line that says why there is no report. */
  readonly printError: (line: string) => void;
  readonly signal?: AbortSignal;
}

/** Returns the exit code: 0 when all is right, 1 when something was wrong or could not be looked at. */
export async function runVerify(options: VerifyCommandOptions): Promise<number> {
  const { config: { cache, listen, upstreamIdleTimeout: idle }, json, print, signal } = options;
  if (!cache) {
    options.printError("Nothing to verify: the cache is off");
    return 1;
  }
  const stats = new Stats();
  let isDamaged = false;
  const events = { onDamaged: () => void (isDamaged = true) };
  let engines: Engines;
  try {
    engines = await openEngines(cache, { events, stats, idle, listen });
  } catch (error) {
    options.printError(
      error instanceof CacheOpenError ? error.message : `Cannot open cache: ${causeOf(error)}`,
    );
    return 1;
  }
  try {
    const { store, index } = engines;
    const content = new Content({ store, index, maxSize: cache.maxSize, idle, stats });
    const onProgress = options.printProgress && progressPrinter(options.printProgress);
    const run = () => verify({ content, store, index }, { signal, onProgress });
    const report = await run().catch(async (error) => {
      if (!isDamaged || !engines.repair) throw error;
      options.printError("The index is damaged: rebuilding it");
      await engines.repair();
      return await run();
    });
    if (json) print(JSON.stringify(report));
    else for (const line of describe(report)) print(line);
    return report.wrong === 0 ? 0 : 1;
  } catch (error) {
    options.printError(`Cannot verify: ${causeOf(error)}`);
    return 1;
  } finally {
    await engines.close();
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
  if (found > 0) yield `Found ${found} stored entries that the index did not know`;
  const verdict = wrong === 0
    ? "all right"
    : `${wrong} wrong, moved to quarantine: they are fetched again when somebody asks for them`;
  yield `Verified ${entries} entries, ${formatSize(bytes)}: ${verdict}`;
}
