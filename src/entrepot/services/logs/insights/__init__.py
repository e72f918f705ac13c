"""Logs Insights: the query language over the log store.

This room owns the language (grammar, compilation to one SQL statement of the store) and the life of queries. It reads the
store through a connection of its own and writes nothing. An unknown command or function is refused with its position;
nothing is ignored.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""
