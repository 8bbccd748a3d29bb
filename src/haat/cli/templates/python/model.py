"""A model: `load` is called once in a process of its own, `predict` for each batch."""


class Model:
    def load(self) -> None:
        """Read weights here. `self.folder` is this folder, `self.settings` the settings in haat-model.yaml."""
        self.stop_words = {"है", "the"}

    def predict(self, inputs):
        """Return one output an input. An input has `text`, `other`, `content`, `format` and `config`."""
        return [self.describe(one.text) for one in inputs]

    def describe(self, text):
        words = text.split()
        return {"words": len(words), "telling": [word for word in words if word.lower() not in self.stop_words]}
