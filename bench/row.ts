/**
 * What a row of the table is: some work, done by several servers in turn.
 *
 * @module
 */
import type { Check } from "./figures.ts";
import type { Peers } from "./peers.ts";
import type { Upstream } from "./upstream.ts";

/** One figure of one server: what was measured in each round. */
export interface Series {
  readonly server: string;
  /** What is measured, with its unit: `requests/s`. */
  readonly figure: string;
  readonly values: readonly number[];
}

/** What a row came to. */
export interface Outcome {
  readonly series: readonly Series[];
  readonly checks: readonly Check[];
  /** What a reader has to know about how it was measured here. */
  readonly notes?: readonly string[];
}

/** What the rows work with. */
export interface Bench {
  readonly upstream: Upstream;
  readonly peers: Peers;
  /** Alternating rounds. */
  readonly rounds: number;
  /** How long one measurement under load takes, seconds. */
  readonly seconds: number;
  /** How long a soak takes. */
  readonly minutes: number;
  /** Tells what is being done. */
  readonly say: (text: string) => void;
}

/** A row. */
export interface Row {
  readonly name: string;
  /** What is done, as the table says it. */
  readonly title: string;
  /** What it means to who uses the proxy. */
  readonly meaning: string;
  /** Not run unless it is named. @default {false} */
  readonly onDemand?: boolean;
  run(bench: Bench): Promise<Outcome>;
}

/** The measurements of `servers`, by server and figure, in alternation. */
export async function alternate<Name extends string>(
  { rounds, say }: Pick<Bench, "rounds" | "say">,
  servers: readonly Name[],
  measure: (server: Name, round: number) => Promise<Readonly<Record<string, number>>>,
): Promise<Map<Name, Map<string, number[]>>> {
  const found = new Map(servers.map((server) => [server, new Map<string, number[]>()]));
  for (let round = 0; round < rounds; round++) {
    // Each begins once, so that none always comes after the same other.
    const turn = servers.map((_, i) => servers[(i + round) % servers.length]!);
    for (const server of turn) {
      const figures = await measure(server, round);
      for (const [figure, value] of Object.entries(figures)) {
        const values = found.get(server)!;
        values.set(figure, [...values.get(figure) ?? [], value]);
      }
      const text = Object.entries(figures).map(([name, value]) =>
        `${name} ${value.toPrecision(4)}`
      );
      say(`  ${round + 1}/${rounds} ${server}: ${text.join(", ")}`);
    }
  }
  return found;
}

/** All of `found` as series. */
export function seriesOf(found: ReadonlyMap<string, ReadonlyMap<string, number[]>>): Series[] {
  return [...found].flatMap(([server, figures]) =>
    [...figures].map(([figure, values]) => ({ server, figure, values }))
  );
}
