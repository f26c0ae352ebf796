/**
 * As much of JSON Schema (2020-12) as the description of the operator's API uses. What it does not know
 * is an error: nothing may be described that is not looked at.
 *
 * @module
 */

/** A schema. */
export type Schema = Readonly<Record<string, unknown>>;

/** Words that say nothing of what is valid. */
const NOTES = ["description", "default", "format"];

type Check = (value: unknown, argument: unknown, at: Place) => Iterable<string>;

/** Where in a value something is, and what references in its schema are to. */
interface Place {
  readonly path: string;
  readonly document: unknown;
  readonly schema: Schema;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "integer":
      return Number.isInteger(value);
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    case "number":
      return typeof value === "number";
    case "string":
      return typeof value === "string";
    case "boolean":
      return typeof value === "boolean";
  }
  throw new Error(`Unknown type ${type}`);
}

const CHECKS: Readonly<Record<string, Check>> = {
  *$ref(value, pointer, { path, document }) {
    yield* problemsOf(value, resolve(document, pointer as string), { path, document });
  },
  *type(value, types, { path }) {
    const all = [types].flat() as string[];
    if (!all.some((type) => isOfType(value, type))) yield `${path}: not ${all.join(" or ")}`;
  },
  *enum(value, values, { path }) {
    if (!(values as unknown[]).includes(value)) yield `${path}: ${value} is not among ${values}`;
  },
  *const(value, only, { path }) {
    if (value !== only) yield `${path}: ${value} is not ${only}`;
  },
  *minimum(value, least, { path }) {
    if (typeof value === "number" && value < (least as number)) yield `${path}: below ${least}`;
  },
  *maximum(value, most, { path }) {
    if (typeof value === "number" && value > (most as number)) yield `${path}: above ${most}`;
  },
  *pattern(value, pattern, { path }) {
    if (typeof value === "string" && !new RegExp(pattern as string).test(value)) {
      yield `${path}: ${value} is not as ${pattern}`;
    }
  },
  *minItems(value, least, { path }) {
    if (Array.isArray(value) && value.length < (least as number)) yield `${path}: too few`;
  },
  *maxItems(value, most, { path }) {
    if (Array.isArray(value) && value.length > (most as number)) yield `${path}: too many`;
  },
  *items(value, schema, { path, document }) {
    if (!Array.isArray(value)) return;
    for (const [i, item] of value.entries()) {
      yield* problemsOf(item, schema as Schema, { path: `${path}[${i}]`, document });
    }
  },
  *required(value, names, { path }) {
    if (!isObject(value)) return;
    for (const name of names as string[]) {
      if (!Object.hasOwn(value, name)) yield `${path}: lacks ${name}`;
    }
  },
  *properties(value, schemas, { path, document }) {
    if (!isObject(value)) return;
    for (const [name, schema] of Object.entries(schemas as Record<string, Schema>)) {
      if (!Object.hasOwn(value, name)) continue;
      yield* problemsOf(value[name], schema, { path: `${path}.${name}`, document });
    }
  },
  *additionalProperties(value, schema, { path, document, schema: whole }) {
    if (!isObject(value)) return;
    const known = Object.keys(whole.properties ?? {});
    for (const name of Object.keys(value).filter((name) => !known.includes(name))) {
      if (schema === false) yield `${path}: has ${name}, which is not described`;
      else yield* problemsOf(value[name], schema as Schema, { path: `${path}.${name}`, document });
    }
  },
  *anyOf(value, schemas, { path, document }) {
    const found = (schemas as Schema[]).map((schema) => [
      ...problemsOf(value, schema, { path, document }),
    ]);
    if (found.every((problems) => problems.length > 0)) yield* found.flat();
  },
};

/** What a reference such as `#/components/schemas/Error` means in `document`. */
export function resolve(document: unknown, pointer: string): Schema {
  let found = document;
  for (const part of pointer.replace(/^#\//, "").split("/")) {
    found = isObject(found) ? found[part] : undefined;
  }
  if (!isObject(found)) throw new Error(`Nothing at ${pointer}`);
  return found;
}

/** What is wrong with `value` by `schema`, whose references are to `document`. */
export function* problemsOf(
  value: unknown,
  schema: Schema,
  { path = "$", document }: { path?: string; document: unknown },
): Iterable<string> {
  for (const [word, argument] of Object.entries(schema)) {
    if (NOTES.includes(word)) continue;
    const check = CHECKS[word];
    if (!check) throw new Error(`Unknown word ${word} in a schema`);
    yield* check(value, argument, { path, document, schema });
  }
}
