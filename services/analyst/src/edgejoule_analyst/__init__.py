"""From records to a judged result: statistics, comparison, the table and the report."""
