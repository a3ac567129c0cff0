"""What tools/train_models.py is made of: corpus, vocabulary, training, distillation, export."""
