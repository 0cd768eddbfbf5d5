from django.db import migrations, models


class Migration(migrations.Migration):
    """A window knows the fleet of its reporters; those of earlier collectors do not."""

    dependencies = [("monitoring", "0002_shadow_pairs")]

    operations = [
        migrations.AddField(
            model_name="window",
            name="fleet",
            field=models.CharField(blank=True, default="", max_length=63),
        ),
        migrations.RemoveConstraint(model_name="window", name="one_window_per_version_segment_interval"),
        migrations.AddConstraint(
            model_name="window",
            constraint=models.UniqueConstraint(
                fields=("version", "purpose", "segment_key", "reference_digest", "fleet", "start", "end"),
                name="one_window_per_version_segment_interval",
            ),
        ),
    ]
