// The signatures of @std/toml that are used here.
export function parse(text: string): Record<string, unknown>;
