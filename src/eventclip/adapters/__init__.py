"""What turns view features into view logits."""
