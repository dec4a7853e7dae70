"""Networks by name: this package's names and other libraries', published weights, and the Hugging Face hub."""
