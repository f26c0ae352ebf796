// The signatures of @std/http that are used here.
export const STATUS_CODE: {
  readonly OK: 200;
  readonly NotModified: 304;
};
export const STATUS_TEXT: { readonly [status: number]: string };
