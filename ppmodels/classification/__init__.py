"""Classes of rows: naive Bayes, logistic regression, perceptrons."""
