// The signatures of @std/path that are used here.
export function dirname(path: string | URL): string;
export function fromFileUrl(url: string | URL): string;
export function join(...paths: string[]): string;
export function resolve(...paths: string[]): string;
