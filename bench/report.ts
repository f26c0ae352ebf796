/**
 * The table, as Markdown and as JSON.
 *
 * @module
 */
import { short, summary } from "./figures.ts";
import type { Outcome, Row } from "./row.ts";

/** A row and what it came to. */
export interface Measured {
  readonly row: Pick<Row, "name" | "title" | "meaning">;
  readonly outcome: Outcome;
}

/** Where and how it was measured. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memory: string;
  readonly kernel: string;
  readonly deno: string;
  readonly peers: readonly string[];
  readonly rounds: number;
  readonly date: string;
}

/** The report for people. */
export function markdown(measured: readonly Measured[], machine: Machine): string {
  return [machineText(machine), targetTable(measured), figureTable(measured), meanings(measured)]
    .join("\n");
}

function meanings(measured: readonly Measured[]): string {
  const lines = measured.map(({ row, outcome }) =>
    `- **${row.title}**: ${[row.meaning, ...outcome.notes ?? []].join(" ")}`
  );
  return `### What each row means\n\n${lines.join("\n")}\n`;
}

function machineText(machine: Machine): string {
  return `Measured ${machine.date} on ${machine.cores} cores of ${machine.cpu}, ${machine.memory} of memory, Linux ` +
    `${machine.kernel}, everything on loopback; ${machine.rounds} alternating rounds. Deno ${machine.deno}; ` +
    `${machine.peers.join("; ")}.\n`;
}

function targetTable(measured: readonly Measured[]): string {
  const lines = measured.flatMap(({ row, outcome }) => [
    ...outcome.checks.map(({ what, target, figure: { median, low, high }, isMet }, i) =>
      `| ${i === 0 ? row.title : ""} | ${what} | ${target} | **${short(median)}** | ${
        spread(low, high)
      } | ${isMet ? "yes" : "**no**"} |`
    ),
    ...outcome.checks.length === 0
      ? [`| ${row.title} | ${(outcome.notes ?? []).join(" ")} | | | | not measured |`]
      : [],
  ]);
  return `### Targets

| work | figure | target | median | spread | met |
|---|---|---|---|---|---|
${lines.join("\n")}
`;
}

function figureTable(measured: readonly Measured[]): string {
  const lines = measured.flatMap(({ row, outcome }) => {
    let title = row.title;
    const servers = [...new Set(outcome.series.map(({ server }) => server))];
    return servers.map((server) => {
      const figures = outcome.series.filter((one) => one.server === server).map(
        ({ figure, values }) => {
          const { median, low, high } = summary(values);
          const range = values.length > 1 ? ` (${spread(low, high)})` : "";
          return `${figure} **${short(median)}**${range}`;
        },
      );
      const line = `| ${title} | ${server} | ${figures.join(" · ")} |`;
      title = "";
      return line;
    });
  });
  return `### Figures

| work | server | median (lowest–highest) |
|---|---|---|
${lines.join("\n")}
`;
}

function spread(low: number, high: number): string {
  return `${short(low)}–${short(high)}`;
}

/** The report for programs. */
export function json(measured: readonly Measured[], machine: Machine): string {
  const rows = measured.map(({ row: { name, title, meaning }, outcome }) => ({
    name,
    title,
    meaning,
    ...outcome,
  }));
  return JSON.stringify({ machine, rows }, undefined, 2) + "\n";
}

/** What a report for programs says was measured. */
export function parseJson(text: string): Measured[] {
  const { rows } = JSON.parse(text) as { rows: (Measured["row"] & Outcome)[] };
  return rows.map(({ name, title, meaning, ...outcome }) => ({
    row: { name, title, meaning },
    outcome,
  }));
}

/** `earlier` with what `later` measured anew in its place, in the order of `names`. */
export function merge(
  earlier: readonly Measured[],
  later: readonly Measured[],
  names: readonly string[],
): Measured[] {
  const all = new Map([...earlier, ...later].map((one) => [one.row.name, one]));
  return names.flatMap((name) => all.get(name) ?? []);
}

const BEGIN = "<!-- what deno task bench wrote -->";
const END = "<!-- until here -->";

/** `document` with `table` between its marks. Throws where it has none. */
export function withTable(document: string, table: string): string {
  const [before, rest] = document.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`No marks: ${BEGIN} and ${END}`);
  return `${before}${BEGIN}\n\n${table.trim()}\n\n${END}${after}`;
}
