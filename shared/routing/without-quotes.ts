/** What of a command says what it is for: what it quotes is material, and an instruction in it is nobody's wish. */

const FENCES = /(```|~~~)(?:([\w+#.-]{1,20})\n)?[\s\S]*?(?:\1|$)/g;
/** Only quotations that end: a lone mark is an inch or a slip. */
const QUOTATIONS = /“[^”]*”|„[^“”]*[“”]|«[^»]*»|"[^"]*"|(?<![\p{L}\p{N}])['‘][^'’\n]*['’](?![\p{L}\p{N}])/gu;
/** Fewer are a name or a term, and what the command is about: `the "payments" service`. */
const WORDS_OF_A_SENTENCE = 3;
const WORD = /[\p{L}\p{N}]{2,}/gu;

/** The command without its quoted sentences, and with a word for each block of code; the whole command where nothing else is in it. */
export function withoutQuotes(command: string): string {
  const own = command
    .replace(FENCES, (_, __, language: string | undefined) => ` ${language ?? "code"} `)
    .replace(QUOTATIONS, (quotation) => ((quotation.match(WORD)?.length ?? 0) < WORDS_OF_A_SENTENCE ? quotation : " "));
  return own.search(WORD) < 0 ? command : own;
}
