/**
 * Every regular expression of a folder's sources: literals, and `new RegExp` of constants.
 *
 * @module
 */
import { join } from "@std/path";

/** One regular expression, and where it stands. */
export interface FoundPattern {
  /** `lib/telemetry/log.ts:41`. */
  readonly at: string;
  readonly pattern: RegExp;
}

/** A piece of source that is no blank and no comment. */
interface Token {
  readonly kind: "word" | "string" | "template" | "regex" | "punctuation";
  readonly text: string;
  readonly line: number;
}

/** After these words a slash begins a regular expression, after any other it divides. */
const BEFORE_REGEX: ReadonlySet<string> = new Set(
  "return typeof case in of do else instanceof void delete throw new await yield".split(" "),
);

/** Takes `source` apart. Throws where it does not understand it. */
export function tokensOf(source: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let line = 1;
  const take = (end: number, kind?: Token["kind"]) => {
    const text = source.slice(at, end);
    if (kind) tokens.push({ kind, text, line });
    for (const char of text) if (char === "\n") line++;
    at = end;
  };
  while (at < source.length) {
    const rest = source.slice(at, at + 2);
    const char = source[at]!;
    if (/\s/.test(char)) take(at + 1);
    else if (rest === "//") take(endOf(source, "\n", at));
    else if (rest === "/*") take(endOf(source, "*/", at + 2) + 2);
    else if (char === '"' || char === "'") take(endOfQuoted(source, at), "string");
    else if (char === "`") take(endOfTemplate(source, at), "template");
    else if (/[\w$\u0080-\uffff]/.test(char)) {
      let end = at;
      while (end < source.length && /[\w$\u0080-\uffff]/.test(source[end]!)) end++;
      take(end, "word");
    } else if (char === "/" && mayBeRegex(tokens)) take(endOfRegex(source, at), "regex");
    else take(at + 1, "punctuation");
  }
  return tokens;
}

function endOf(source: string, what: string, from: number): number {
  const end = source.indexOf(what, from);
  return end < 0 ? source.length : end;
}

function mayBeRegex(tokens: readonly Token[]): boolean {
  const before = tokens.at(-1);
  if (!before) return true;
  // As in `size! / 2`.
  if (before.text === "!" && tokens.length > 1) return mayBeRegex(tokens.slice(-2, -1));
  if (before.kind === "word") return BEFORE_REGEX.has(before.text);
  return before.kind === "punctuation" && ![")", "]", "}"].includes(before.text);
}

function endOfQuoted(source: string, start: number): number {
  let at = start + 1;
  while (source[at] !== source[start]) {
    if (at >= source.length || source[at] === "\n") throw new Error(`Open string at ${start}`);
    at += source[at] === "\\" ? 2 : 1;
  }
  return at + 1;
}

function endOfTemplate(source: string, start: number): number {
  let at = start + 1;
  while (source[at] !== "`") {
    if (at >= source.length) throw new Error(`Open template at ${start}`);
    if (source.startsWith("${", at)) at = endOfExpression(source, at + 2);
    else at += source[at] === "\\" ? 2 : 1;
  }
  return at + 1;
}

/** After the brace that closes what begins at `start`, inside a template. */
function endOfExpression(source: string, start: number): number {
  let at = start;
  for (let depth = 1; depth > 0;) {
    const char = source[at];
    if (char === undefined) throw new Error(`Open expression at ${start}`);
    if (char === '"' || char === "'") at = endOfQuoted(source, at);
    else if (char === "`") at = endOfTemplate(source, at);
    else if (char === "/" && /[(,=:]\s*$/.test(source.slice(start, at))) {
      at = endOfRegex(source, at);
    } else {
      if (char === "{") depth++;
      if (char === "}") depth--;
      at++;
    }
  }
  return at;
}

function endOfRegex(source: string, start: number): number {
  let at = start + 1;
  for (let inClass = false; inClass || source[at] !== "/";) {
    const char = source[at];
    if (char === undefined || char === "\n") throw new Error(`Open expression at ${start}`);
    if (char === "[") inClass = true;
    if (char === "]") inClass = false;
    at += char === "\\" ? 2 : 1;
  }
  at++;
  while (/[a-z]/.test(source[at] ?? "")) at++;
  return at;
}

/** Every pattern in `source`, which is called `name`. Throws for one that it cannot make. */
export function patternsIn(source: string, name: string): FoundPattern[] {
  const tokens = tokensOf(source);
  const constants = constantsOf(tokens);
  const found: FoundPattern[] = [];
  tokens.forEach((token, i) => {
    const at = `${name}:${token.line}`;
    if (token.kind === "regex") found.push({ at, pattern: ofLiteral(token.text) });
    if (token.kind === "template") {
      // What stands inside of a template's expressions.
      for (const inner of expressionsOf(token.text)) found.push(...patternsIn(inner, at));
    }
    if (token.text !== "RegExp" || tokens[i + 1]?.text !== "(") return;
    const end = tokens.findIndex((other, n) => n > i + 1 && [",", ")"].includes(other.text));
    const source = constantOf(tokens.slice(i + 2, end), constants);
    const flags = tokens[end]?.text === "," && tokens[end + 1]?.kind === "string"
      ? tokens[end + 1]!.text.slice(1, -1)
      : "";
    if (source === undefined) throw new Error(`${at}: a pattern that is not made of constants`);
    found.push({ at, pattern: new RegExp(source, flags) });
  });
  return found;
}

function ofLiteral(text: string): RegExp {
  const end = text.lastIndexOf("/");
  return new RegExp(text.slice(1, end), text.slice(end + 1));
}

function expressionsOf(template: string): string[] {
  const found: string[] = [];
  for (let at = 1; at < template.length - 1;) {
    if (template.startsWith("${", at)) {
      const end = endOfExpression(template, at + 2);
      found.push(template.slice(at + 2, end - 1));
      at = end;
    } else at += template[at] === "\\" ? 2 : 1;
  }
  return found;
}

/** The texts that names stand for: `const NAME = "…"`, also of templates of such. */
function constantsOf(tokens: readonly Token[]): Map<string, string> {
  const constants = new Map<string, string>();
  tokens.forEach((token, i) => {
    const name = tokens[i + 1]?.text;
    if (token.text !== "const" || name === undefined || tokens[i + 2]?.text !== "=") return;
    const end = tokens.findIndex((other, n) => n > i && other.text === ";");
    const text = constantOf(tokens.slice(i + 3, end), constants);
    if (text !== undefined) constants.set(name, text);
  });
  return constants;
}

function constantOf(
  tokens: readonly Token[],
  constants: ReadonlyMap<string, string>,
): string | undefined {
  const [token] = tokens;
  if (!token || tokens.length > 1) return undefined;
  if (token.kind === "word") return constants.get(token.text);
  if (token.kind === "string") return unescaped(token.text.slice(1, -1));
  if (token.kind !== "template") return undefined;
  let text = token.text.slice(1, -1);
  for (const inner of expressionsOf(token.text)) {
    const value = constants.get(inner.trim());
    if (value === undefined) return undefined;
    // Escapes are undone below, in the template's own text only.
    text = text.replace("${" + inner + "}", () => value.replaceAll("\\", "\\\\"));
  }
  return unescaped(text);
}

/** Without its escapes; undefined where it has one that is not understood. */
function unescaped(text: string): string | undefined {
  if (/\\[ux0]/.test(text)) return undefined;
  return text.replace(
    /\\(.)/gs,
    (_, char: string) => ({ n: "\n", r: "\r", t: "\t" })[char] ?? char,
  );
}

/** Every pattern in the TypeScript and JavaScript below `folder`. */
export function patternsBelow(root: string, folder: string): FoundPattern[] {
  const found: FoundPattern[] = [];
  for (const entry of Deno.readDirSync(join(root, folder))) {
    const path = join(root, folder, entry.name);
    if (entry.isDirectory) found.push(...patternsBelow(root, join(folder, entry.name)));
    else if (/\.(ts|js)$/.test(entry.name)) {
      try {
        found.push(...patternsIn(Deno.readTextFileSync(path), join(folder, entry.name)));
      } catch (cause) {
        throw new Error(`Cannot read the patterns of ${path}`, { cause });
      }
    }
  }
  return found;
}
