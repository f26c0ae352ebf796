/**
 * `warm IMAGE…`: downloads images into the cache.
 *
 * @module
 */
import type { Operations } from "../operator/operations.ts";
import type { Platforms } from "../oci/platform.ts";
import { formatSize } from "../util/units.ts";
import type { WarmedImage, WarmProgress } from "../warm/warm.ts";
import { Bars } from "./bars.ts";
import type { Output } from "./output.ts";
import { shortDigest } from "./table.ts";

/** Options for {@linkcode runWarm}. */
export interface WarmCommandOptions {
  readonly operations: Pick<Operations, "warm">;
  readonly images: readonly string[];
  readonly platforms?: Platforms;
  readonly json: boolean;
  readonly output: Output;
  readonly signal?: AbortSignal;
}

/** Maximum number of failures printed per image. The JSON output has all of them. */
const MAX_FAILURES = 10;

/** Warms images. Returns exit code 0 if every image is complete and current, else 1. */
export async function runWarm(options: WarmCommandOptions): Promise<number> {
  const { operations, images, platforms, json, output, signal } = options;
  const progress = output.terminal
    ? new BarProgress(new Bars(output.terminal))
    : json
    ? undefined
    : new LineProgress(output);
  let results: WarmedImage[];
  try {
    const onProgress = (part: WarmProgress) => progress?.part(part);
    results = await operations.warm(images, { platforms, signal, onProgress });
  } finally {
    progress?.end();
  }
  if (json) output.print(JSON.stringify(results));
  else for (const result of results) for (const line of describe(result)) output.print(line);
  return results.every(({ ok }) => ok) ? 0 : 1;
}

/** Returns the label of a part, shown after its image. */
function labelOf({ role, reference, platform }: WarmProgress): string {
  return [platform, role, shortDigest(reference)].filter(Boolean).join(" ");
}

/** Draws a bar for each part in progress. */
class BarProgress {
  readonly #bars: Bars;

  constructor(bars: Bars) {
    this.#bars = bars;
  }

  part(part: WarmProgress): void {
    const key = `${part.image} ${part.role} ${part.reference}`;
    if (part.state === "running") {
      const label = `${part.image} ${labelOf(part)}`;
      this.#bars.set(key, { label, received: part.received, size: part.size });
    } else if (part.state !== "waiting") this.#bars.delete(key);
  }

  end(): void {
    this.#bars.clear();
  }
}

/** Prints a line for each part that was fetched or failed. */
class LineProgress {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  part(part: WarmProgress): void {
    const { image, state, received, error } = part;
    if (state === "fetched") {
      this.#output.print(`${image}: ${labelOf(part)}: fetched, ${formatSize(received)}`);
    } else if (state === "failed") {
      this.#output.print(`${image}: ${labelOf(part)}: ${error}`);
    }
  }

  end(): void {}
}

function* describe(result: WarmedImage): Iterable<string> {
  const { image, ok, digests, size, fetched, failures } = result;
  if (ok) {
    const parts = `${digests.length} parts, ${formatSize(size)}`;
    yield `${image}: complete: ${parts}, ${formatSize(fetched)} fetched now`;
    return;
  }
  yield `${image}: incomplete: ${failures.length} of its parts failed`;
  for (const { role, reference, error } of failures.slice(0, MAX_FAILURES)) {
    yield `  ${role} ${shortDigest(reference)}: ${error}`;
  }
  if (failures.length > MAX_FAILURES) yield `  and ${failures.length - MAX_FAILURES} more`;
}
