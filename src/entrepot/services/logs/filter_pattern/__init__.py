"""The filter pattern language of CloudWatch Logs, compiled into a function of a message.

Four forms: terms (`ERROR -timeout "a phrase" ?any %regex%`), JSON (`{ $.a.b = "x*" && $.n > 3 }`), space-delimited
(`[ip, user, ..., status = 4*]`), and nothing, which is everything. Matching takes time linear in the message for each
condition: regular expressions are RE2's.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from entrepot.services.logs.filter_pattern.pattern import PATTERN_LIMIT_CHARS, Matches, Pattern, compile_pattern, parse

__all__ = ["PATTERN_LIMIT_CHARS", "Matches", "Pattern", "compile_pattern", "parse"]
