// The signatures of @std/yaml that are used here.
export function parse(text: string): unknown;
export function parseAll(text: string): unknown[];
