"""What people look at while calls pass: the table, `llmtab top`, a line a call; all of it folds over the lines."""
