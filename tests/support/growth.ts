/**
 * Whether a regular expression takes more time than in proportion to its text: attacks are made of the pattern's
 * own parts and timed, and how the time grows is looked at. Nothing depends on how fast the machine is.
 *
 * @module
 */

/** A part of a pattern. */
type Node =
  /** One of these characters. */
  | { readonly kind: "char"; readonly chars: readonly string[] }
  | { readonly kind: "sequence" | "choice"; readonly parts: readonly Node[] }
  | { readonly kind: "repeat"; readonly part: Node; readonly min: number; readonly max: number };

/** Stand for all others in classes. */
const PROBES = [..." \t\n\r\0aAzZfF0b9_-.,:;/\\\"'=?&%+*~^$#@!()[]{}<>|`é\u2028"];
const MAX_SAMPLES = 4;

/** Reads a pattern as far as it is needed to attack it. */
class PatternReader {
  readonly #source: string;
  readonly #flags: string;
  #at = 0;

  constructor({ source, flags }: RegExp) {
    this.#source = source;
    this.#flags = flags.replaceAll(/[gy]/g, "");
  }

  read(): Node {
    const choices = [this.#sequence()];
    while (this.#takes("|")) choices.push(this.#sequence());
    if (this.#at < this.#source.length && this.#source[this.#at] !== ")") {
      throw new Error(`Cannot read ${this.#source} at ${this.#at}`);
    }
    return choices.length === 1 ? choices[0]! : { kind: "choice", parts: choices };
  }

  #takes(text: string): boolean {
    const isHere = this.#source.startsWith(text, this.#at);
    if (isHere) this.#at += text.length;
    return isHere;
  }

  #sequence(): Node {
    const parts: Node[] = [];
    while (this.#at < this.#source.length && !/[|)]/.test(this.#source[this.#at]!)) {
      const part = this.#atom();
      parts.push(this.#repeated(part));
    }
    return { kind: "sequence", parts };
  }

  #repeated(part: Node): Node {
    const [text = "", min = "", comma, max] =
      /^(?:[*+?]|\{(\d+)(,?)(\d*)\})\??/.exec(this.#source.slice(this.#at)) ?? [];
    this.#at += text.length;
    if (text === "") return part;
    if (text[0] === "*") return { kind: "repeat", part, min: 0, max: Infinity };
    if (text[0] === "+") return { kind: "repeat", part, min: 1, max: Infinity };
    if (text[0] === "?") return { kind: "repeat", part, min: 0, max: 1 };
    const most = comma ? (max ? Number(max) : Infinity) : Number(min);
    return { kind: "repeat", part, min: Number(min), max: most };
  }

  #atom(): Node {
    const start = this.#at;
    const nothing: Node = { kind: "sequence", parts: [] };
    if (this.#takes("^") || this.#takes("$")) return nothing;
    if (this.#takes("\\b") || this.#takes("\\B")) return nothing;
    if (this.#takes("(")) {
      const isNegative = this.#takes("?!") || this.#takes("?<!");
      if (!isNegative && !this.#takes("?:") && !this.#takes("?=") && !this.#takes("?<=")) {
        const name = /^\?<\w+>/.exec(this.#source.slice(this.#at))?.[0] ?? "";
        this.#at += name.length;
      }
      const inner = this.read();
      if (!this.#takes(")")) throw new Error(`Open group in ${this.#source}`);
      return isNegative ? nothing : inner;
    }
    if (this.#takes("[")) {
      for (this.#takes("^"), this.#takes("]"); !this.#takes("]");) {
        this.#at += this.#source[this.#at] === "\\" ? 2 : 1;
      }
    } else if (this.#takes("\\p{") || this.#takes("\\P{")) {
      this.#at = this.#source.indexOf("}", this.#at) + 1;
    } else if (this.#takes("\\x")) this.#at += 2;
    else if (this.#takes("\\u")) this.#at += 4;
    else this.#at += this.#source[this.#at] === "\\" ? 2 : 1;
    const text = this.#source.slice(start, this.#at);
    const one = new RegExp(`^(?:${text})$`, this.#flags);
    const named = text.replaceAll("\\", "").replaceAll(/[\]^[]/g, "");
    const chars = [...new Set([...named, ...PROBES])].filter((char) => one.test(char));
    return { kind: "char", chars: chars.slice(0, 12) };
  }
}

function samples(node: Node): string[] {
  switch (node.kind) {
    case "char":
      return node.chars.slice(0, MAX_SAMPLES);
    case "choice":
      return node.parts.flatMap((part) => samples(part).slice(0, 2)).slice(0, 2 * MAX_SAMPLES);
    case "repeat": {
      const count = Math.max(node.min, Math.min(node.max, 1));
      return samples(node.part).map((text) => text.repeat(count));
    }
    case "sequence": {
      const all = node.parts.map(samples).map((texts) => texts.length === 0 ? [""] : texts);
      const most = Math.min(MAX_SAMPLES, Math.max(1, ...all.map(({ length }) => length)));
      return Array.from(
        { length: most },
        (_, i) => all.map((texts) => texts[i % texts.length]!).join(""),
      );
    }
  }
}

/** What is repeated, and what comes before it. */
interface Attack {
  readonly prefix: string;
  readonly pump: string;
}

/** What a pattern's own parts suggest: each repetition, after what leads to it, and whatever stands together. */
function collect(node: Node, prefix: string, attacks: Attack[]): void {
  switch (node.kind) {
    case "char":
      return;
    case "choice":
      for (const part of node.parts) collect(part, prefix, attacks);
      return;
    case "repeat": {
      const pumps = node.part.kind === "char" ? node.part.chars : samples(node.part);
      for (const pump of pumps) {
        for (const before of [prefix, "", "\0"]) attacks.push({ prefix: before, pump });
      }
      collect(node.part, prefix, attacks);
      return;
    }
    case "sequence": {
      let before = "";
      node.parts.forEach((part, i) => {
        collect(part, prefix + before, attacks);
        // What begins here and goes on for a while: the start of many matches that never end.
        let run = "";
        for (const next of node.parts.slice(i)) {
          run += samples(next)[0] ?? "";
          attacks.push({ prefix: "", pump: run }, { prefix: "", pump: `-${run}` });
        }
        before += samples(part)[0] ?? "";
      });
    }
  }
}

/** Text to attack `pattern` with: `text(n)` has at least `n` characters. */
function attacksOn(pattern: RegExp): { name: string; text: (length: number) => string }[] {
  const tree = new PatternReader(pattern).read();
  const found: Attack[] = [];
  collect(tree, "", found);
  for (const pump of [...samples(tree), ...PROBES]) found.push({ prefix: "", pump });
  const own = new Set(pattern.source.replaceAll(/[\w\\]/g, ""));
  const ends = ["", "\0", "\n\0", "!", ...[...own].slice(0, 6)];
  const unique = new Map<string, Attack & { end: string }>();
  for (const { prefix, pump } of found) {
    if (pump === "") continue;
    for (const end of ends) unique.set(JSON.stringify([prefix, pump, end]), { prefix, pump, end });
  }
  return [...unique].map(([name, { prefix, pump, end }]) => ({
    name,
    text: (length) => prefix + pump.repeat(Math.ceil(length / pump.length)) + end,
  }));
}

/** All that is done with a pattern: found once, or, where it is global, everywhere. */
function apply(pattern: RegExp, text: string): void {
  pattern.lastIndex = 0;
  if (pattern.global) text.replace(pattern, "");
  else pattern.exec(text);
}

/** The least time of some runs, ms: what else the machine does only adds to it. */
function timeOf(work: () => void, runs: number): number {
  let least = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    work();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

const LENGTH = 2048;
/** Up to the length that is compared, slowly: what grows by powers takes for ever at once. */
const LADDER = [12, 16, 20, 24, 28, 32, 48, 64, 96, 128, 256, 512, 1024, LENGTH];

/** What one pass over {@linkcode LENGTH} characters takes here, ms: the least of many. */
function onePass(): number {
  const text = "ab".repeat(LENGTH / 2);
  const simple = /^(?:[a-z]|\d)*$/;
  const passes = 20;
  const work = () => {
    for (let i = 0; i < passes; i++) simple.exec(text);
  };
  return timeOf(work, 20) / passes;
}

/** What is done with a text, and the texts to attack it with. */
export interface Attacked {
  readonly work: (text: string) => unknown;
  readonly attacks: Iterable<{ readonly name: string; readonly text: (length: number) => string }>;
}

/**
 * An input that `pattern` takes more than in proportion to its length for; undefined where none is found.
 */
export function superlinear(pattern: RegExp): string | undefined {
  return growing({ work: (text) => apply(pattern, text), attacks: attacksOn(pattern) }, {
    allowance: 5,
  });
}

/** The same of a function, for texts that are made of `parts`: each alone, by twos, and after another. */
export function superlinearParser(
  work: (text: string) => unknown,
  parts: readonly string[],
): string | undefined {
  const attacks = new Map<string, (length: number) => string>();
  const ends = ["", "\0", ...parts.slice(0, 2)];
  const pumps = parts.flatMap((part) => [part, ...parts.map((other) => part + other)]);
  for (const prefix of ["", "-", ...parts]) {
    for (const pump of pumps) {
      for (const end of ends) {
        attacks.set(
          JSON.stringify([prefix, pump, end]),
          (length) => prefix + pump.repeat(Math.ceil(length / pump.length)) + end,
        );
      }
    }
  }
  const list = [...attacks].map(([name, text]) => ({ name, text }));
  const attempt = (text: string) => {
    try {
      work(text);
    } catch {
      // Refused: what that took is what is looked at.
    }
  };
  // More than a pattern's: texts are made, not only looked at.
  return growing({ work: attempt, attacks: list }, { allowance: 200 });
}

/**
 * The name of an attack that takes time by more than its length. One that takes hardly longer than one pass over
 * the text (`allowance` times as long) is linear; of the others it is seen how they grow.
 */
function growing({ work, attacks }: Attacked, { allowance }: { allowance: number }) {
  const pass = onePass();
  for (const { name, text } of attacks) {
    const isOver = (length: number, most: number) => {
      const attack = text(length);
      // A second and third look before anything is believed.
      return timeOf(() => work(attack), 1) > most && timeOf(() => work(attack), 4) > most;
    };
    if (LADDER.some((length) => isOver(length, 60 * allowance * pass))) return name;
    if (isOver(LENGTH, allowance * pass) && growsTooFast(work, text)) return name;
  }
  return undefined;
}

/** Whether four times the length takes more than ten times as long, each time it is looked at. */
function growsTooFast(work: Attacked["work"], text: (length: number) => string): boolean {
  for (let attempt = 0; attempt < 4; attempt++) {
    const [short, long] = [text(4 * LENGTH), text(16 * LENGTH)];
    const before = timeOf(() => work(short), 5);
    const after = timeOf(() => work(long), 3);
    if (after <= 10 * before) return false;
  }
  return true;
}
